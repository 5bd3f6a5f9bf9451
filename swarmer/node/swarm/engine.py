"""This node's docker engine, over its unix socket: no package but Python's own, so that it is there at once.

Source: the Engine API reference, 1.45, `swarm`, `nodes` and `events`.
"""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from swarmer.node.patience import patient

SOCKET: Final = "/run/docker.sock"

#: Seconds until docker gives up on a change of the membership itself, and some.
CHANGE: Final = 30.0

#: A swarm node as docker's API tells it.
SwarmNode = Mapping[str, Any]


class EngineError(Exception):
    """The engine doesn't answer, or says no."""


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


class Engine:
    """The engine's HTTP API, over a connection per call: a call may wait, while others go on."""

    def call(self, method: str, path: str, body: object = None, *, timeout: float = 5) -> Any:
        """What the engine answers, from JSON.

        Raises:
            EngineError: it doesn't answer within `timeout` seconds, more on a slow node, or not with success.
        """
        connection = _Connection(patient(timeout))
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"docker doesn't answer: {error}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise EngineError(f"{method} {path}: {answer.status} {_message(text)}")
        return json.loads(text) if text.strip() else None

    def membership(self) -> Membership:
        """Where this node stands in the swarm."""
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
        connection = _Connection(None)
        try:
            connection.request("GET", f"/events?filters={filters}")
            answer = connection.getresponse()
            while line := answer.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"docker's events end: {error}") from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__("docker")
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(SOCKET)


def _place(address: str, availability: str) -> dict[str, object]:
    """How the others reach this node, and that it listens nowhere else."""
    listen = f"{address}:2377"
    return {
        "ListenAddr": listen,
        "AdvertiseAddr": listen,
        "DataPathAddr": address,
        "Availability": availability,
    }


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip()
