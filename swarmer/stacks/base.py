"""The interface of every stack: it manages the machines of a cluster, and doesn't know what runs on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar

from swarmer import image as node_image
from swarmer import wait
from swarmer.image import Image, Kind
from swarmer.ledger import Ledger, Resource
from swarmer.seed import packet_filter
from swarmer.seed.cloudinit import SeedData
from swarmer.seed.environment import NodeEnvironment
from swarmer.spec import Server, Spec
from swarmer.stacks.findings import Finding
from swarmer.state import ClusterHome


class Capability(StrEnum):
    """What a scenario may require from its stack, beyond running nodes."""

    OWN_KERNEL = "own-kernel"
    IPVS = "ipvs"
    NETEM = "netem"
    CLOCK = "clock"
    POWER_CUT = "power-cut"
    ENCRYPTED_OVERLAYS = "encrypted-overlays"
    CONTAINER_LIMITS = "container-limits"


class Stack(ABC):
    """Where the nodes of one cluster run. Every resource is recorded in the ledger before it is created.

    The constructor has no side effects: inspecting a cluster requires neither its hypervisor nor an account.
    """

    name: ClassVar[str]
    #: The image that nodes boot; a machine has a kernel of its own.
    image_kind: ClassVar[Kind] = Kind.CONTAINER

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.home = ledger.home
        self.spec = ledger.spec

    # -- before a cluster exists ---------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def preflight(cls, spec: Spec, home: ClusterHome) -> None:
        """Refuse a cluster that can't run on this machine, before anything is created.

        Raises:
            HostError: with a hint.
        """

    @classmethod
    @abstractmethod
    def examine(cls, spec: Spec, home: ClusterHome) -> Iterator[Finding]:
        """Look at everything on this machine that matters to a cluster; nothing is changed, and nothing raised."""

    @classmethod
    def build_image(cls, report: Callable[[str], None]) -> Image:
        """Build the image for nodes of this stack; layers that are up to date are reused."""
        return node_image.build(report, kind=cls.image_kind)

    # -- properties ----------------------------------------------------------------------------------------

    @property
    def slowness(self) -> float:
        """The factor by which deadlines are multiplied: `SWARMER_SLOWNESS` if it is set, else the measured one.

        Raises:
            HostError: `SWARMER_SLOWNESS` isn't a positive number.
        """
        return wait.given_slowness() or self.measured_slowness

    @property
    def measured_slowness(self) -> float:
        """The factor by which machines are slower than normal; 1 until `prepare` has measured it."""
        return 1.0

    @property
    @abstractmethod
    def missing(self) -> Mapping[Capability, str]:
        """The capabilities that this stack lacks on this machine, each with the reason shown for a skip."""

    @property
    def cpu_contended(self) -> bool:
        """Whether nodes share so few processors that they take turns at boot instead of working in parallel."""
        return False

    @classmethod
    def side_by_side(cls, spec: Spec) -> tuple[int, str]:  # noqa: ARG003
        """The number of clusters of this spec that a run of the scenarios boots on this machine, and the reason."""
        return 1, f"the default of the {cls.name} stack"

    # -- addresses and ports -------------------------------------------------------------------------------

    @abstractmethod
    def network_config(self, server: Server) -> Mapping[str, Any]:
        """The network configuration of a node, in version 2 of cloud-init's format."""

    @abstractmethod
    def resolvers(self) -> Sequence[IPv4Address]:
        """The servers that nodes query for names outside of the cluster; empty if they reach nothing outside."""

    @abstractmethod
    def endpoint(self, server: Server) -> IPv4Address:
        """The address at which this host reaches a node, for SSH and every other client."""

    def port_rules(self) -> Mapping[str, str]:
        """Path on a node to content: the files with which nodes enforce `swarmer.ports` themselves.

        A stack may also enforce the same table outside of its nodes, for example by security groups.
        """
        return packet_filter.files(self.spec)

    def environment(self, server: Server) -> NodeEnvironment:
        """The part of a node's seed data that this stack decides."""
        return NodeEnvironment(
            network=self.network_config(server),
            resolvers=self.resolvers(),
            port_rules=self.port_rules(),
            slowness=self.slowness,
            consul_first=self.cpu_contended,
        )

    # -- the whole cluster ---------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """What the nodes will lack because of this host, one sentence each."""
        return []

    @abstractmethod
    def prepare(self, image: Image) -> list[str]:
        """Create what the nodes share, such as their network. Returns notes for the user, each to be shown once."""

    @abstractmethod
    def launch_all(
        self, machines: Sequence[tuple[Server, SeedData]], image: Image, *, launched: Callable[[str], None]
    ) -> None:
        """Create the nodes of a new cluster with empty disks over the image, and switch them on.

        Args:
            machines: each with its seed data.
            launched: called with the name of each node that was switched on.
        """

    def logs(self) -> list[Path]:
        """The log files of the tools under this stack, for debugging."""
        return []

    # -- one node ------------------------------------------------------------------------------------------

    @abstractmethod
    def power_off(self, node: str) -> None:
        """Cut the node's power, without a shutdown. The disk stays."""

    @abstractmethod
    def power_on(self, node: str) -> None:
        """Boot the same disk again."""

    @abstractmethod
    def running(self, node: str) -> bool:
        """Whether the machine is switched on."""

    @abstractmethod
    def replace(self, server: Server, seed: SeedData | None, image: Image) -> None:
        """Discard the node and its disk, and launch a new one in its place. Without seed data, it stays idle."""

    @abstractmethod
    def console(self, node: str) -> str:
        """The output of the node's console, over all its boots; empty before the first one."""

    @abstractmethod
    def memory(self, node: str) -> int | None:
        """The memory that the node currently uses, in bytes; None if the host can't determine it."""

    # -- removal -------------------------------------------------------------------------------------------

    @abstractmethod
    def kill_all(self) -> None:
        """Switch off every node immediately, without waiting: the first step of destroying a cluster."""

    @abstractmethod
    def remove(self, resource: Resource) -> None:
        """Remove one resource of the ledger; a resource that doesn't exist is not an error."""
