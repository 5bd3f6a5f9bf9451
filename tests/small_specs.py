"""Specs for tests that need any."""

from swarmer.spec import Spec


def one_node(*, network: str = "10.7.0", stack: str = "nspawn", dc: str = "dev") -> Spec:
    """A cluster of the node `core-1`; `network` is the first three numbers of its addresses."""
    server = {"name": "core-1", "memory": 1024, "cpus": 2, "ip": f"{network}.11", "consul": "server", "swarm": "both"}
    return Spec.model_validate({"admin_network": f"{network}.0/24", "stack": stack, "dc": dc, "servers": [server]})
