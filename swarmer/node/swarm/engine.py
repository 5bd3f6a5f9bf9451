"""The part of docker's API that is about the swarm.

Source: the Engine API reference, 1.45, `swarm`, `nodes` and `events`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from swarmer.node import docker_engine
from swarmer.ports import SWARM

#: Seconds for a change of the membership: longer than docker's own time-out.
CHANGE: Final = 30.0

#: A node of the swarm, as docker's API returns it.
SwarmNode = Mapping[str, Any]


@dataclass(frozen=True)
class Membership:
    """The state of this node's engine in the swarm.

    Attributes:
        state: `inactive`, `pending`, `active`, `error` or `locked`.
        node: its id in the swarm.
        cluster: the id of the swarm; only managers know it.
        manager: whether it is a manager.
        error: docker's message, if any.
    """

    state: str
    node: str
    cluster: str
    manager: bool
    error: str


class Engine(docker_engine.Engine):
    """The engine of this node."""

    def membership(self) -> Membership:
        """The state of this node in the swarm."""
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

    def force_new_cluster(self, address: str, *, availability: str) -> None:
        """Make this manager the only one of its swarm; its services and nodes are kept."""
        self.call("POST", "/swarm/init", _place(address, availability) | {"ForceNewCluster": True}, timeout=CHANGE)

    def join(self, address: str, *, availability: str, token: str, managers: Sequence[str]) -> None:
        """Join the swarm of these managers, `ADDRESS:PORT` each."""
        body = _place(address, availability) | {"RemoteAddrs": list(managers), "JoinToken": token}
        self.call("POST", "/swarm/join", body, timeout=CHANGE)

    def leave(self) -> None:
        """Leave the swarm, even if that costs its quorum."""
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
        """Change a node's specification, unless it was changed meanwhile."""
        path = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
        self.call("POST", path, {**node["Spec"], **specification})

    def remove(self, node: SwarmNode) -> None:
        """Remove a node that isn't a manager."""
        self.call("DELETE", f"/nodes/{node['ID']}?force=true")

    def node_events(self) -> Iterator[Mapping[str, Any]]:
        """The events of nodes of the swarm, after an empty one; ends with the engine.

        Raises:
            EngineError: the engine doesn't answer.
        """
        filters = quote(json.dumps({"type": ["node"]}))
        yield from self.events(f"filters={filters}")


def _place(address: str, availability: str) -> dict[str, object]:
    """The address at which the others reach this node, and the only one on which it listens."""
    listen = f"{address}:{SWARM.number}"
    return {
        "ListenAddr": listen,
        "AdvertiseAddr": listen,
        "DataPathAddr": address,
        "Availability": availability,
    }
