"""Consul's access rules, made by the servers themselves: a policy and a token for every node.

Runs on consul servers as `swarmer-acl.service`. The token of each node came with the seed data; the leader
writes what is missing, so any server can be the first, and a second run changes nothing.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import requests

SEED = Path("/etc/swarmer")
API = "https://127.0.0.1:8500/v1"

#: Read for everyone in the cluster: DNS answers and peer discovery are made of nodes and services.
#: Writing is granted by the node identity of each token: a node may write itself, nothing else.
NODE_POLICY = {
    "Name": "swarmer-node",
    "Description": "What every node of the cluster may read",
    "Rules": 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" } '
    'agent_prefix "" { policy = "read" }',
}


class Rules:
    """The access rules, through this node's own agent."""

    def __init__(self, session: requests.Session, datacenter: str) -> None:
        self.session = session
        self.datacenter = datacenter

    def is_leader(self, address: str) -> bool:
        """Whether the agent at `address` leads, and is ready to write rules."""
        leader: str = self._call("GET", "status/leader")
        return leader.split(":")[0] == address

    def ensure_policy(self) -> None:
        """Write the policy of nodes, unless it is there."""
        names = [policy["Name"] for policy in self._call("GET", "acl/policies")]
        if NODE_POLICY["Name"] not in names:
            self._call("PUT", "acl/policy", NODE_POLICY)

    def ensure_tokens(self, tokens: dict[str, str]) -> None:
        """Write a token for every node that has none."""
        present = {token["Description"] for token in self._call("GET", "acl/tokens")}
        for node, secret in tokens.items():
            if f"node {node}" in present:
                continue
            token = {
                "SecretID": secret,
                "Description": f"node {node}",
                "Policies": [{"Name": NODE_POLICY["Name"]}],
                "NodeIdentities": [{"NodeName": node, "Datacenter": self.datacenter}],
            }
            self._call("PUT", "acl/token", token)

    def complete(self, tokens: dict[str, str]) -> bool:
        """Whether every node has its token, as this server sees it."""
        present = {token["Description"] for token in self._call("GET", "acl/tokens")}
        return all(f"node {node}" in present for node in tokens)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        answer = self.session.request(method, f"{API}/{path}", json=body, timeout=5)
        answer.raise_for_status()
        return answer.json()


def main() -> int:
    """Until every node has its token: look whether this server leads, and if so write them."""
    node = json.loads((SEED / "node.json").read_text())
    secrets = json.loads((SEED / "acl.json").read_text())
    session = requests.Session()
    session.headers["X-Consul-Token"] = secrets["management"]
    session.verify = str(SEED / "consul/ca-chain.pem")
    session.cert = (str(SEED / "consul/node.pem"), str(SEED / "consul/node-key.pem"))
    rules = Rules(session, node["dc"])
    while True:
        try:
            if rules.is_leader(node["ip"]):
                rules.ensure_policy()
                rules.ensure_tokens(secrets["tokens"])
            if rules.complete(secrets["tokens"]):
                return 0
        except requests.RequestException as error:
            print(f"consul isn't ready: {type(error).__name__}", flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
