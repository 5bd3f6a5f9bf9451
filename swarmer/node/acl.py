"""Creates consul's access rules, and hands each agent its tokens.

Runs on every node as `swarmer-acl.service`. The tokens come with the seed data, their rules with the image.
The server that leads writes missing rules, so any server can be the first, and a second run changes nothing. An agent
gets the token for its own entries here, once the servers have it: an agent that starts with an unknown token doesn't
sync its services to the catalog for 15 to 30 s (consul's anti-entropy, after "ACL not found").

Sources: the HTTP API of consul, `acl` and `agent#update-acl-tokens`.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmer.node.consul_agent import SEED, Agent, Refused, own_token
from swarmer.node.slowness import scaled
from swarmer.ports import CONSUL_RPC

#: One file per service, `SERVICE.hcl`; `{{node}}` stands for the name of the node.
POLICIES = Path("/usr/share/swarmer/acl")


@dataclass(frozen=True)
class Token:
    """The token of one service on one node."""

    node: str
    service: str
    secret: str

    @property
    def name(self) -> str:
        return f"{self.node}/{self.service}"

    @property
    def rules(self) -> str:
        return (POLICIES / f"{self.service}.hcl").read_text().replace("{{node}}", self.node)


def missing(agent: Agent, tokens: Iterable[Token]) -> list[Token]:
    """The tokens that consul doesn't have yet, the most urgent first."""
    present = {token["Description"] for token in agent.call("GET", "acl/tokens")}
    absent = [token for token in tokens if token.name not in present]
    return sorted(
        absent, key=lambda token: (token.service not in ("agent", "dns"), not token.service.startswith("swarm"))
    )


def write_rules(agent: Agent, datacenter: str, tokens: Iterable[Token]) -> None:
    """Write these tokens, each with its policy. A policy may exist already, from an interrupted run."""
    policies = {policy["Name"] for policy in agent.call("GET", "acl/policies")}
    for token in tokens:
        policy = f"swarmer-{token.name.replace('/', '-')}"
        if policy not in policies:
            agent.call("PUT", "acl/policy", {"Name": policy, "Description": token.name, "Rules": token.rules})
        definition = {"SecretID": token.secret, "Description": token.name, "Policies": [{"Name": policy}]}
        if token.service == "agent":
            definition["NodeIdentities"] = [{"NodeName": token.node, "Datacenter": datacenter}]
        agent.call("PUT", "acl/token", definition)


def hand_tokens_to(agent: Agent) -> None:
    """Give this node's agent its tokens: for its own entries, and for requests without a token, such as for names."""
    agent.call("GET", "acl/token/self")
    tokens = {"agent": own_token("agent"), "default": own_token("dns")}
    Agent(tokens["default"]).call("GET", "acl/token/self")
    for purpose, token in tokens.items():
        agent.call("PUT", f"agent/token/{purpose}", {"Token": token})


def take_over(own: Agent, writing: Agent, node: Mapping[str, Any]) -> None:
    """Become the node of this name in the catalog, without the services of a former one.

    Consul refuses a new node of the same name while it takes the former one for alive. If the new one
    joined before the death was noticed, that would last forever, because health is recorded by name. What is written
    is what the leader writes for a member that joins; in one transaction, so that the name always resolves, and only
    if the entry hasn't changed meanwhile: another one belongs to this node itself.
    If consul did let the new one take the name, the former services stay until the agent syncs.

    Args:
        writing: has the right to write entries of this node, and on servers of the service `consul`.
    """
    # Of a server that has just been elected, any other read may be as old as its last snapshot.
    entry = own.call("GET", f"catalog/node/{node['name']}?consistent")
    identity = own.call("GET", "agent/self")["Config"]["NodeID"]
    if not entry:
        return
    if entry["Node"]["ID"] == identity:
        # In this order: what is registered meanwhile is in the agent first.
        for service in entry["Services"].keys() - own.call("GET", "agent/services").keys() - {"consul"}:
            writing.call("PUT", "catalog/deregister", {"Node": node["name"], "ServiceID": service})
        return
    print(f"the catalog has the former {node['name']}, {entry['Node']['ID']}: replacing it", flush=True)
    name = node["name"]
    alive = {"Node": name, "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"}
    operations: list[dict[str, Any]] = [
        {"Node": {"Verb": "delete-cas", "Node": {"Node": name, "ModifyIndex": entry["Node"]["ModifyIndex"]}}},
        {"Node": {"Verb": "set", "Node": {"Node": name, "ID": identity, "Address": node["ip"]}}},
        {"Check": {"Verb": "set", "Check": alive}},
    ]
    if node["consul"] == "server":
        service = {"ID": "consul", "Service": "consul", "Port": CONSUL_RPC.number}
        operations.append({"Service": {"Verb": "set", "Node": name, "Service": service}})
    writing.call("PUT", "txn", operations)


def main() -> int:
    """Run until this node's agent has its tokens and, on a server, all rules are written by the leader.

    No server ends earlier: the leader may change while it writes, and the next one has to continue.
    """
    node = json.loads((SEED / "node.json").read_text())
    secrets_file = SEED / "acl.json"
    rules: dict[str, Any] = json.loads(secrets_file.read_text()) if secrets_file.exists() else {}
    tokens = [Token(**row) for row in rules.get("tokens", ())]
    own = Agent(own_token("agent"))
    management = Agent(rules.get("management", ""))
    in_force = False
    last = ""
    while True:
        try:
            leader = own.call("GET", "status/leader")
            absent = missing(management, tokens) if leader and tokens else []
            if leader and leader.split(":")[0] == node["ip"]:
                write_rules(management, node["dc"], absent)
                absent = []
            if leader and not in_force:
                take_over(own, management if rules else own, node)
                hand_tokens_to(own)
                in_force = True
            if in_force and not absent:
                return 0
            if absent:
                raise Refused(f"{len(absent)} tokens are still to be written by the leader, {leader}")
        except Refused as error:
            if str(error) != last:
                last = str(error)
                print(last, flush=True)
        time.sleep(scaled(0.1))


if __name__ == "__main__":
    sys.exit(main())
