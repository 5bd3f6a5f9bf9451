"""Nodes and a cluster that exist in memory only, for tests of what happens when a node fails."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.ledger import Ledger
from swarmer.secrets.authority import Authority
from swarmer.secrets.credentials import Credentials
from swarmer.spec import Server
from swarmer.ssh import Result, Ssh
from swarmer.stacks import Stack
from swarmer.state import ClusterHome


class FakeNode(Node):
    """A node that answers commands by functions, and records what happens to it.

    Attributes:
        events: the commands that it ran, and `power_off`, `power_on`, `booted`, `console`.
        answers: (part of a command, what it prints); the first that fits counts. Other commands print nothing.
        errors: (part of an event, the error that it raises); each is raised once.
    """

    def __init__(self, cluster: "FakeCluster", name: str, ip: str) -> None:
        server = SimpleNamespace(name=name, ip=IPv4Address(ip), consul="server", swarm="both")
        super().__init__(cluster, cast(Server, server))
        self.on = True
        self.events: list[str] = []
        self.answers: list[tuple[str, Callable[[], str]]] = []
        self.errors: list[tuple[str, BaseException]] = []

    def event(self, name: str) -> None:
        self.events.append(name)
        for part, error in self.errors:
            if part in name:
                self.errors.remove((part, error))
                raise error

    def execute(self, command: str, *, timeout: float = 60, input: str | None = None) -> Result:  # noqa: ARG002
        self.event(command)
        for part, answer in self.answers:
            if part in command:
                return Result(command, 0, answer(), "")
        return Result(command, 0, "", "")

    def console(self) -> str:
        self.event("console")
        return "the console\n"

    @property
    def running(self) -> bool:
        return self.on

    def power_off(self) -> None:
        self.on = False
        self.event("power_off")

    def wait_booted(self, **_: object) -> None:
        self.event("booted")

    def did(self, part: str) -> bool:
        """Whether an event has this in its name."""
        return any(part in event for event in self.events)


class FakeCluster(Cluster):
    """Three fake nodes, on a stack that can only switch them on.

    Attributes:
        converged: how many times `wait_converged` was called.
        locked: the error that reading the credentials raises.
        without_ca: whether the files of its CAs are missing.
    """

    def __init__(self) -> None:
        self.members: Sequence[FakeNode] = [FakeNode(self, f"node-{n}", f"192.0.2.{n}") for n in (1, 2, 3)]
        self.nodes: list[Node] = list(self.members)
        stack = SimpleNamespace(power_on=self._power_on, logs=list, memory=lambda _: None, slowness=1.0)
        stack.endpoint = lambda server: server.ip
        self.stack = cast(Stack, stack)
        self.converged = 0
        self.locked: Exception | None = None
        self.without_ca = False
        self.listeners = []

    def hurry(self) -> None:
        """Give up soon."""
        cast(Any, self.stack).slowness = 0.01

    def manage(self) -> None:
        """Give the cluster a ledger, under the current SWARMER_HOME."""
        self.home = ClusterHome("nspawn", "fake")
        self.ssh = Ssh(self.home)
        fields = {"home": self.home, "image": "0123456789ab", "layers": ["layer"], "kept": True, "broken": ""}
        self.ledger = cast(Ledger, SimpleNamespace(**fields))

    def swarm_leader(self, *, among: list[Node] | None = None, timeout: float = 30) -> Node:  # noqa: ARG002
        return self.nodes[0]

    @property
    def authority(self) -> Authority:
        if self.without_ca:
            raise SwarmerError("the CAs are missing")
        return cast(Authority, SimpleNamespace(end=datetime(2030, 1, 1, tzinfo=UTC)))

    @property
    def credentials(self) -> Credentials:
        if self.locked:
            raise self.locked
        return Credentials(gossip_key="the-gossip-key", management_token="secret", tokens={})

    @property
    def consul_servers(self) -> list[Node]:
        return []

    def _power_on(self, name: str) -> None:
        node = next(node for node in self.members if node.name == name)
        node.event("power_on")
        node.on = True

    def wait_converged(self, *, timeout: float = 60) -> None:  # noqa: ARG002
        self.converged += 1
