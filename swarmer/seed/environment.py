"""What a node's seed data takes from the stack that the node runs on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from swarmer.spec import Server, Spec


@dataclass(frozen=True)
class NodeEnvironment:
    """What the stack decides of one node.

    Attributes:
        network: the node's network configuration, version 2 of cloud-init's format.
        resolvers: the servers that the node asks for names outside of the cluster; none without internet.
        port_rules: path on the node to content: the files by which the node itself enforces `swarmer.ports`.
        slowness: the factor by which the machine is slower than a usual one.
        consul_first: whether all else waits at boot until consul has formed.
    """

    network: Mapping[str, Any]
    resolvers: Sequence[IPv4Address] = ()
    port_rules: Mapping[str, str] = field(default_factory=dict)
    slowness: float = 1
    consul_first: bool = False


def static_network(
    spec: Spec, server: Server, interface: Mapping[str, Any], *, gateway: IPv4Address | None
) -> dict[str, Any]:
    """The network configuration of a node with the address of its spec.

    Args:
        interface: how the stack names the admin interface: `{"host0": {}}`, or
            `{"admin": {"match": {"macaddress": …}}}`.
        gateway: the way to everything outside of the admin network; None where there is none.
    """
    address: dict[str, Any] = {
        "addresses": [f"{server.ip}/{spec.admin_network.prefixlen}"],
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": [],
    }
    if gateway:
        address["routes"] = [{"to": "0.0.0.0/0", "via": str(gateway)}]
    return {"version": 2, "ethernets": {name: {**match, **address} for name, match in interface.items()}}
