"""This node's docker engine, as a member of a swarm.

Source: the Engine API reference, 1.45, `swarm`, `nodes` and `events`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from swarmer.node import docker_engine
from swarmer.ports import SWARM

#: Seconds until docker gives up on a change of the membership itself, and some.
CHANGE: Final = 30.0

#: A swarm node as docker's API tells it.
SwarmNode = Mapping[str, Any]


@dataclass(frozen=True)
class Membership:
    """Where this node's engine stands.

    Attributes:
        state: `inactive`, `pending`, `active`, `error` or `locked`.
        node: its id in the swarm.
        cluster: the id of the swarm; only managers know it.
        manager: whether it is a manager.
        error: what is wrong, in docker's words.
    """

    state: str
    node: str
    cluster: str
    manager: bool
    error: str


class Engine(docker_engine.Engine):
    """The engine's part of the API that is about the swarm."""

    def membership(self) -> Membership:
        """Where this node stands in the swarm."""
        if self.swarm_state() == "inactive":
            return Membership("inactive", node="", cluster="", manager=False, error="")
        swarm = self.call("GET", "/info")["Swarm"]
        return Membership(
            state=swarm["LocalNodeState"],
            node=swarm["NodeID"],
            cluster=(swarm.get("Cluster") or {}).get("ID", ""),
            manager=swarm["ControlAvailable"],
            error=swarm["Error"],
        )

    def init(self, address: str, *, availability: str, pool: str, heartbeat: float) -> None:
        """Found a swarm.

        Args:
            heartbeat: seconds between two signs of life of a node; after three missing ones it counts as down.
        """
        specification = {"Dispatcher": {"HeartbeatPeriod": int(heartbeat * 1e9)}}
        body = _place(address, availability) | {"DefaultAddrPool": [pool], "SubnetSize": 24, "Spec": specification}
        self.call("POST", "/swarm/init", body, timeout=CHANGE)

    def go_on_alone(self, address: str, *, availability: str) -> None:
        """Make this manager the only one of its swarm; what it knows of services and nodes stays."""
        self.call("POST", "/swarm/init", _place(address, availability) | {"ForceNewCluster": True}, timeout=CHANGE)

    def join(self, address: str, *, availability: str, token: str, managers: Sequence[str]) -> None:
        """Join the swarm of these managers, `ADDRESS:PORT` each."""
        body = _place(address, availability) | {"RemoteAddrs": list(managers), "JoinToken": token}
        self.call("POST", "/swarm/join", body, timeout=CHANGE)

    def leave(self) -> None:
        """Leave the swarm, whatever becomes of it."""
        self.call("POST", "/swarm/leave?force=true", timeout=CHANGE)

    def swarm(self) -> Mapping[str, Any]:
        """The swarm itself, with `ID` and `JoinTokens`; only managers know it, and only while there is a leader."""
        found: Mapping[str, Any] = self.call("GET", "/swarm")
        return found

    def nodes(self) -> list[SwarmNode]:
        """The nodes of the swarm; only managers know them, and only while there is a leader."""
        found: list[SwarmNode] = self.call("GET", "/nodes")
        return found

    def change(self, node: SwarmNode, **specification: object) -> None:
        """Change a node's specification, unless somebody else did meanwhile."""
        path = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
        self.call("POST", path, {**node["Spec"], **specification})

    def remove(self, node: SwarmNode) -> None:
        """Forget a node that is no manager."""
        self.call("DELETE", f"/nodes/{node['ID']}?force=true")

    def node_events(self) -> Iterator[Mapping[str, Any]]:
        """What happens to nodes of the swarm, as it happens; ends when the engine does.

        Raises:
            EngineError: the engine doesn't answer.
        """
        filters = quote(json.dumps({"type": ["node"]}))
        yield from self.events(f"filters={filters}")


def _place(address: str, availability: str) -> dict[str, object]:
    """How the others reach this node, and that it listens nowhere else."""
    listen = f"{address}:{SWARM.number}"
    return {
        "ListenAddr": listen,
        "AdvertiseAddr": listen,
        "DataPathAddr": address,
        "Availability": availability,
    }
