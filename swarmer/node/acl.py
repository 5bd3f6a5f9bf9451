"""Consul's access rules, made by the cluster itself; every node brings its own token into force.

Runs on every node as `swarmer-acl.service`. The tokens come with the seed data. Whichever server leads writes the
rules that are missing, so any server can be the first, and a second run changes nothing. An agent starts without a
token and gets it here once the servers know it: one that began with an unknown token would not tell the catalog of
its services for 15 to 30 s (consul's anti-entropy, after "ACL not found").

Sources: the HTTP API of consul, `acl` and `agent#update-acl-tokens`.
"""

import http.client
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

SEED = Path("/etc/swarmer")

#: Read for everyone in the cluster: DNS answers and peer discovery are made of nodes and services.
READ_POLICY = {
    "Name": "swarmer-read",
    "Description": "What every node of the cluster may read",
    "Rules": 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" } '
    'agent_prefix "" { policy = "read" }',
}


def own_policy(node: str) -> dict[str, str]:
    """What a node may change: its own agent, which it hands its token. Its catalog entry is its identity's."""
    return {
        "Name": f"swarmer-node-{node}",
        "Description": f"What node {node} may change",
        "Rules": f'agent "{node}" {{ policy = "write" }}',
    }


class Refused(Exception):
    """Consul is not ready, or says no."""


class Api:
    """This node's own agent, over one connection that is kept open."""

    def __init__(self, token: str) -> None:
        context = ssl.create_default_context(cafile=str(SEED / "consul/ca-chain.pem"))
        context.load_cert_chain(SEED / "consul/node.pem", SEED / "consul/node-key.pem")
        self._connection = http.client.HTTPSConnection("127.0.0.1", 8500, timeout=5, context=context)
        self._headers = {"X-Consul-Token": token}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """What consul answers, from JSON.

        Raises:
            Refused: it doesn't answer, or not with success.
        """
        try:
            content = None if body is None else json.dumps(body)
            self._connection.request(method, f"/v1/{path}", content, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Refused(f"consul doesn't answer: {error}") from error
        if answer.status != 200:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace').strip()}")
        return json.loads(text) if text else None


def write_rules(api: Api, datacenter: str, tokens: dict[str, str]) -> None:
    """Write the policies and the tokens of all nodes, as far as they are not there."""
    policies = {policy["Name"] for policy in api.call("GET", "acl/policies")}
    present = {token["Description"] for token in api.call("GET", "acl/tokens")}
    for policy in (READ_POLICY, *map(own_policy, tokens)):
        if policy["Name"] not in policies:
            api.call("PUT", "acl/policy", policy)
    for node, secret in tokens.items():
        if f"node {node}" not in present:
            token = {
                "SecretID": secret,
                "Description": f"node {node}",
                "Policies": [{"Name": READ_POLICY["Name"]}, {"Name": own_policy(node)["Name"]}],
                "NodeIdentities": [{"NodeName": node, "Datacenter": datacenter}],
            }
            api.call("PUT", "acl/token", token)


def bring_into_force(api: Api, token: str) -> None:
    """Give this node's agent its token, for its own entries and for whoever asks it without one (DNS)."""
    api.call("GET", "acl/token/self")
    for purpose in ("agent", "default"):
        api.call("PUT", f"agent/token/{purpose}", {"Token": token})


def main() -> int:
    """Until this node's token is in force: if it leads, write the rules; then try."""
    node = json.loads((SEED / "node.json").read_text())
    token = (SEED / "consul-token").read_text().strip()
    secrets_file = SEED / "acl.json"
    rules = json.loads(secrets_file.read_text()) if secrets_file.exists() else None
    own = Api(token)
    management = Api(rules["management"]) if rules else None
    last = ""
    while True:
        try:
            leader = own.call("GET", "status/leader")
            if management and rules and leader.split(":")[0] == node["ip"]:
                write_rules(management, node["dc"], rules["tokens"])
            if leader:
                bring_into_force(own, token)
                return 0
        except Refused as error:
            if str(error) != last:
                last = str(error)
                print(last, flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
