"""What the nodes of a swarm share through consul: which swarm it is, how to join it, and its managers.

| key | value | readers |
|---|---|---|
| `swarm/cluster` | the id of the swarm | managers |
| `swarm/join/worker`, `swarm/join/manager` | the join tokens | all nodes the first, managers the second |
| `swarm/nodes/NODE` | the id of the node, then its former ones; written by the node | managers, and the node itself |
| `swarm/managers/NODE` | the id in the swarm of each node that holds the swarm's state on its disk | managers |
| `swarm/members/NODE` | the leader's view of each node: `ID`, or `ID down` | managers, and the node itself |
| `swarm/lock` | held by the one manager that founds the swarm | managers |
"""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from swarmer.node.consul_agent import Agent, Refused
from swarmer.node.slowness import scaled
from swarmer.ports import DOCKER, SWARM

SERVICE: Final = "swarm"
PREFIX: Final = "swarm/"

#: Seconds after which a manager that doesn't renew its check no longer counts as healthy.
SILENCE: Final = scaled(10)

#: The most operations that consul takes in one transaction.
_LARGEST: Final = 64

#: How many of its former ids a node records.
_FORMER: Final = 5


class Identity(NamedTuple):
    """The ids of a node as it records them itself: only the node and the managers have the token for that.

    Attributes:
        node: its id in the swarm; empty if it has recorded none.
        former: the ids that it had before, newest first: entries of these are superfluous.
    """

    node: str = ""
    former: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """From a value in consul."""
        node, *former = text.split() or [""]
        return cls(node, tuple(former[:_FORMER]))

    def __str__(self) -> str:
        return " ".join((self.node, *self.former))

    def becomes(self, node: str) -> "Identity":
        """The identity of the same node with this id as the present one."""
        former = dict.fromkeys(each for each in (self.node, *self.former) if each not in ("", node))
        return Identity(node, tuple(former)[:_FORMER])


class Known(NamedTuple):
    """The leader's view of a node.

    Attributes:
        node: its id in the swarm; empty if it isn't a member.
        down: whether it counts as down.
    """

    node: str
    down: bool

    @classmethod
    def parse(cls, text: str) -> "Known":
        """From a value in consul."""
        node, _, state = text.partition(" ")
        return cls(node, state == "down")

    def __str__(self) -> str:
        return f"{self.node} down" if self.down else self.node


@dataclass(frozen=True)
class Records:
    """What consul has of the swarm.

    Attributes:
        cluster: the id of the swarm; empty before it was founded.
        version: of that entry, for changing it only if it hasn't changed; 0 if there is none.
        tokens: `worker` and `manager` to the token by which they join.
        nodes: node name to the ids that the node has recorded.
        managers: node name to node id of all that hold the swarm's state.
        members: node name to the leader's latest view of it, for all members.
        index: of this state, for waiting for another one.
    """

    cluster: str
    version: int
    tokens: Mapping[str, str]
    nodes: Mapping[str, Identity]
    managers: Mapping[str, str]
    members: Mapping[str, Known]
    index: int


class Store:
    """Consul, as the swarm of one node uses it."""

    def __init__(self, agent: Agent, node: str) -> None:
        self._agent = agent
        self._node = node
        self._announced: bool | None = None

    # -- records -------------------------------------------------------------------------------------------

    def records(self, *, index: int = 0, wait: float = 0) -> Records:
        """All records, for managers; with an index, once they have changed."""
        entries, found = self._agent.read(f"kv/{PREFIX}?recurse", index=index, wait=wait)
        values = {entry["Key"].removeprefix(PREFIX): _text(entry) for entry in entries or ()}
        versions = {entry["Key"].removeprefix(PREFIX): entry["ModifyIndex"] for entry in entries or ()}
        return Records(
            cluster=values.get("cluster", ""),
            version=versions.get("cluster", 0),
            tokens={role: values[f"join/{role}"] for role in ("worker", "manager") if f"join/{role}" in values},
            nodes={name: Identity.parse(text) for name, text in _below("nodes/", values).items()},
            managers=_below("managers/", values),
            members={name: Known.parse(text) for name, text in _below("members/", values).items()},
            index=found,
        )

    def worker_token(self, *, index: int = 0, wait: float = 0) -> tuple[str, int]:
        """The join token of workers, empty if there is none, and the index of that state."""
        entries, found = self._agent.read(f"kv/{PREFIX}join/worker", index=index, wait=wait)
        return (_text(entries[0]) if entries else ""), found

    def record_tokens(self, tokens: Mapping[str, str]) -> None:
        """Publish the join tokens."""
        self._transaction([_set(f"join/{role}", token) for role, token in tokens.items()])

    def record_node(self, node_id: str) -> None:
        """Record that this node has this id in the swarm."""
        known = self._identity()
        if known != (identity := known.becomes(node_id)):
            self._transaction([_set(f"nodes/{self._node}", str(identity))])

    def record_manager(self, node_id: str) -> None:
        """Record that this node has this id in the swarm, and holds the swarm's state."""
        identity = self._identity().becomes(node_id)
        self._transaction([_set(f"nodes/{self._node}", str(identity)), _set(f"managers/{self._node}", node_id)])

    def _identity(self) -> Identity:
        entries, _ = self._agent.read(f"kv/{PREFIX}nodes/{self._node}")
        return Identity.parse(_text(entries[0]) if entries else "")

    def record_members(self, recorded: Mapping[str, Known], present: Mapping[str, Known]) -> None:
        """Record that exactly these nodes are members; only differences are written."""
        changes = [_set(f"members/{name}", str(node)) for name, node in present.items() if recorded.get(name) != node]
        changes += [_delete(f"members/{name}") for name in recorded if name not in present]
        for first in range(0, len(changes), _LARGEST):
            self._transaction(changes[first : first + _LARGEST])

    def member(self) -> Known:
        """The leader's view of this node."""
        entries, _ = self._agent.read(f"kv/{PREFIX}members/{self._node}")
        return Known.parse(_text(entries[0]) if entries else "")

    def forget_manager(self, name: str = "") -> None:
        """Record that this node, or the one of that name, doesn't hold the swarm's state."""
        self._agent.call("DELETE", f"kv/{PREFIX}managers/{name or self._node}")

    # -- founding ------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[str]:
        """Hold the lock for founding the swarm; yields the session that holds it.

        The session ends with the block, with this node, and after ten seconds in any case; `publish` checks it.

        Raises:
            Refused: another manager holds it.
        """
        self._end_own_sessions()
        definition = {"Name": SERVICE, "TTL": f"{scaled(10):.0f}s", "LockDelay": "1ms", "Checks": ["serfHealth"]}
        session: str = self._agent.call("PUT", "session/create", definition)["ID"]
        try:
            if not self._agent.call("PUT", f"kv/{PREFIX}lock?acquire={session}", self._node):
                raise Refused("another manager is founding the swarm")
            yield session
        finally:
            self._agent.call("PUT", f"session/destroy/{session}")

    def _end_own_sessions(self) -> None:
        """End the session of an earlier run of this program that was killed."""
        for session in self._agent.call("GET", f"session/node/{self._node}"):
            if session["Name"] == SERVICE:
                self._agent.call("PUT", f"session/destroy/{session['ID']}")

    def publish(self, swarm: Mapping[str, Any], node_id: str, *, replacing: int, session: str) -> None:
        """Record a swarm as that of this cluster.

        Args:
            replacing: the version of the record of a swarm that doesn't exist any more; 0 if there is none.
            session: which holds the lock.

        Raises:
            Refused: another one is recorded already, or the lock was lost.
        """
        self._transaction(
            [
                {"KV": {"Verb": "check-session", "Key": f"{PREFIX}lock", "Session": session}},
                _set("cluster", swarm["ID"], replacing=replacing),
                _set(f"nodes/{self._node}", str(self._identity().becomes(node_id))),
                _set(f"managers/{self._node}", node_id),
                _set("join/worker", swarm["JoinTokens"]["Worker"]),
                _set("join/manager", swarm["JoinTokens"]["Manager"]),
            ]
        )

    def _transaction(self, operations: list[dict[str, Any]]) -> None:
        self._agent.call("PUT", "txn", operations)

    # -- managers ------------------------------------------------------------------------------------------

    def managers(self, *, index: int = 0, wait: float = 0) -> tuple[list[str], int]:
        """`ADDRESS:PORT` of the healthy managers, the leader first; and the index of that state."""
        rows, found = self._agent.read(f"health/service/{SERVICE}?passing", index=index, wait=wait)
        rows = sorted(rows or (), key=lambda row: "leader" not in (row["Service"]["Tags"] or ()))
        others = [row for row in rows if row["Node"]["Node"] != self._node]
        return [f"{row['Service']['Address'] or row['Node']['Address']}:{SWARM.number}" for row in others], found

    def has_leader(self) -> bool:
        """Whether a healthy manager leads the swarm."""
        rows, _ = self._agent.read(f"health/service/{SERVICE}?passing&tag=leader")
        return bool(rows)

    def announce(self, *, leader: bool) -> None:
        """Register this node as a healthy manager, with a tag if it leads."""
        if self._announced is leader:
            try:
                self._agent.call("PUT", f"agent/check/pass/service:{SERVICE}")
                return
            except Refused:
                self._announced = None  # a new agent, without the service
        check = {"TTL": f"{SILENCE:.0f}s", "Status": "passing"}
        tags = ["leader"] if leader else []
        definition = {"Name": SERVICE, "ID": SERVICE, "Port": DOCKER.number, "Tags": tags, "Check": check}
        self._agent.call("PUT", "agent/service/register?replace-existing-checks=true", definition)
        self._announced = leader

    def announce_trouble(self, trouble: str) -> None:
        """Report that this manager isn't healthy."""
        if self._announced is None:
            return
        self._agent.call("PUT", f"agent/check/update/service:{SERVICE}", {"Status": "critical", "Output": trouble})

    def withdraw(self) -> None:
        """Deregister this node as a manager."""
        services = self._agent.call("GET", "agent/services")
        if SERVICE in services:
            self._agent.call("PUT", f"agent/service/deregister/{SERVICE}")
        self._announced = None


def _text(entry: Mapping[str, Any]) -> str:
    # Each node writes a key of its own: no content may keep the others from reading theirs.
    return base64.b64decode(entry["Value"] or "").decode(errors="replace")


def _below(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _delete(key: str) -> dict[str, Any]:
    return {"KV": {"Verb": "delete", "Key": f"{PREFIX}{key}"}}


def _set(key: str, value: str, *, replacing: int | None = None) -> dict[str, Any]:
    encoded = base64.b64encode(value.encode()).decode()
    operation: dict[str, Any] = {"Verb": "set", "Key": f"{PREFIX}{key}", "Value": encoded}
    if replacing is not None:
        operation |= {"Verb": "cas", "Index": replacing}
    return {"KV": operation}
