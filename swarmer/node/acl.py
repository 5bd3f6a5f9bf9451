"""Consul's access rules, made by the cluster itself; every node brings its agent's token into force.

Runs on every node as `swarmer-acl.service`. The tokens come with the seed data, what each is good for with the
image. Whichever server leads writes the rules that are missing, so any server can be the first, and a second run
changes nothing. An agent gets the token for its own entries here, once the servers know it: one that began with an
unknown token would not tell the catalog of its services for 15 to 30 s (consul's anti-entropy, after "ACL not
found").

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
    """The tokens that consul doesn't know yet, in the order in which they are waited for."""
    present = {token["Description"] for token in agent.call("GET", "acl/tokens")}
    absent = [token for token in tokens if token.name not in present]
    return sorted(
        absent, key=lambda token: (token.service not in ("agent", "dns"), not token.service.startswith("swarm"))
    )


def write_rules(agent: Agent, datacenter: str, tokens: Iterable[Token]) -> None:
    """Write these tokens, each with its policy; a policy may be there already, of a try that was cut short."""
    policies = {policy["Name"] for policy in agent.call("GET", "acl/policies")}
    for token in tokens:
        policy = f"swarmer-{token.name.replace('/', '-')}"
        if policy not in policies:
            agent.call("PUT", "acl/policy", {"Name": policy, "Description": token.name, "Rules": token.rules})
        definition = {"SecretID": token.secret, "Description": token.name, "Policies": [{"Name": policy}]}
        if token.service == "agent":
            definition["NodeIdentities"] = [{"NodeName": token.node, "Datacenter": datacenter}]
        agent.call("PUT", "acl/token", definition)


def bring_into_force(agent: Agent) -> None:
    """Give this node's agent its tokens: for its own entries, and for whoever asks it without one, as for names."""
    agent.call("GET", "acl/token/self")
    tokens = {"agent": own_token("agent"), "default": own_token("dns")}
    Agent(tokens["default"]).call("GET", "acl/token/self")
    for purpose, token in tokens.items():
        agent.call("PUT", f"agent/token/{purpose}", {"Token": token})


def take_over(own: Agent, writing: Agent, node: Mapping[str, Any]) -> None:
    """Be the node of this name in the catalog, with nothing of a former one.

    Consul refuses a new node of the same name while it takes the former one for alive. Where the new one came so soon
    that nobody noticed the death, it would do so for ever: its health is that of its name, and so the new one's. What
    is written is what the leader writes of a member that joins; in one transaction, so that the name always resolves,
    and only while the entry is the one that was looked at: another one is of this node itself.
    Where consul did let the new one take the name, it has the former one's services until the agent looks for them.

    Args:
        writing: who may write entries of this node, and on servers of the service `consul`.
    """
    # Of a server that has just been elected, any other read may be as old as its last snapshot.
    entry = own.call("GET", f"catalog/node/{node['name']}?consistent")
    identity = own.call("GET", "agent/self")["Config"]["NodeID"]
    if not entry:
        return
    if entry["Node"]["ID"] == identity:
        # Not the other way round: what is announced meanwhile is known to the agent first.
        for service in entry["Services"].keys() - own.call("GET", "agent/services").keys() - {"consul"}:
            writing.call("PUT", "catalog/deregister", {"Node": node["name"], "ServiceID": service})
        return
    print(f"the catalog has the former {node['name']}, {entry['Node']['ID']}: this one takes its place", flush=True)
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
    """Until this node's token is in force, and, on a server, all rules are written, by whichever server leads.

    No server ends earlier: the leader may lose its office while it writes, and the next one has to go on.
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
                bring_into_force(own)
                in_force = True
            if in_force and not absent:
                return 0
            if absent:
                raise Refused(f"{len(absent)} tokens are to be written by the leader, {leader}")
        except Refused as error:
            if str(error) != last:
                last = str(error)
                print(last, flush=True)
        time.sleep(scaled(0.1))


if __name__ == "__main__":
    sys.exit(main())
