"""What every stack can do: the machines under a cluster, without knowing what runs on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from swarmer.state import ClusterHome


class Capability(StrEnum):
    """What a scenario may need of its stack, beyond running nodes."""

    OWN_KERNEL = "own-kernel"
    IPVS = "ipvs"
    NETEM = "netem"
    CLOCK = "clock"
    POWER_CUT = "power-cut"


class Stack(ABC):
    """Where the nodes of one cluster run. Every resource goes into the ledger before it is made.

    A stack object does nothing before one of its methods is called: looking at a cluster needs neither its hypervisor
    nor an account.
    """

    name: ClassVar[str]
    #: Whether nodes bring a kernel of their own.
    image_kind: ClassVar[Kind] = Kind.CONTAINER

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.home = ledger.home
        self.spec = ledger.spec

    # -- before there is a cluster -------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def preflight(cls, spec: Spec, home: ClusterHome) -> None:
        """Refuse, before anything is made, a cluster that can't run on this machine.

        Raises:
            HostError: with a hint.
        """

    @classmethod
    def build_image(cls, report: Callable[[str], None]) -> Image:
        """The image for nodes of this stack; layers that are up to date are reused."""
        return node_image.build(report, kind=cls.image_kind)

    # -- what it offers ------------------------------------------------------------------------------------

    @property
    def slowness(self) -> float:
        """The factor by which deadlines grow here: what `SWARMER_SLOWNESS` says, or else what was measured.

        Raises:
            HostError: `SWARMER_SLOWNESS` isn't a factor.
        """
        return wait.given_slowness() or self.measured_slowness

    @property
    def measured_slowness(self) -> float:
        """The factor by which machines are slower than usual ones; 1 before `prepare` has measured it."""
        return 1.0

    @property
    @abstractmethod
    def missing(self) -> Mapping[Capability, str]:
        """The capabilities this stack lacks on this machine, each with the reason a skip shows."""

    @property
    def cpu_contended(self) -> bool:
        """Whether nodes share so few processors that what they do side by side at boot takes turns."""
        return False

    @classmethod
    def side_by_side(cls, spec: Spec) -> tuple[int, str]:  # noqa: ARG003
        """How many clusters of this spec a run of the scenarios boots on this machine, and the reason."""
        return 1, f"the stack {cls.name} shares nothing of this machine"

    # -- addresses and ports -------------------------------------------------------------------------------

    @abstractmethod
    def network_config(self, server: Server) -> Mapping[str, Any]:
        """The network configuration of a node, version 2 of cloud-init's format."""

    @abstractmethod
    def resolvers(self) -> Sequence[IPv4Address]:
        """The servers that nodes ask for names outside of the cluster; none where they reach nothing outside."""

    @abstractmethod
    def endpoint(self, server: Server) -> IPv4Address:
        """The address at which this host reaches a node, for SSH and every other client."""

    def port_rules(self) -> Mapping[str, str]:
        """Path on a node to content: the files by which nodes themselves enforce `swarmer.ports`.

        A stack may enforce the same table outside of its nodes as well, such as by security groups.
        """
        return packet_filter.files(self.spec)

    def environment(self, server: Server) -> NodeEnvironment:
        """What a node's seed data takes from this stack."""
        return NodeEnvironment(
            network=self.network_config(server),
            resolvers=self.resolvers(),
            port_rules=self.port_rules(),
            slowness=self.slowness,
            consul_first=self.cpu_contended,
        )

    # -- the whole cluster ---------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, image: Image) -> list[str]:
        """Make what the nodes share, such as their network. Returns notes for the user, each to be shown once."""

    @abstractmethod
    def launch_all(
        self, machines: Sequence[tuple[Server, SeedData]], image: Image, *, launched: Callable[[str], None]
    ) -> None:
        """Make the nodes of a new cluster with empty disks over the image, and switch them on.

        Args:
            machines: each with its seed data.
            launched: is told the name of each node that was switched on.
        """

    def logs(self) -> list[Path]:
        """The log files of the tools under this stack, for debugging."""
        return []

    # -- one node ------------------------------------------------------------------------------------------

    @abstractmethod
    def power_off(self, node: str) -> None:
        """Pull the plug: no shutdown, no goodbye. The disk stays."""

    @abstractmethod
    def power_on(self, node: str) -> None:
        """Boot the same disk again."""

    @abstractmethod
    def running(self, node: str) -> bool:
        """Whether the machine is switched on."""

    @abstractmethod
    def replace(self, server: Server, seed: SeedData | None, image: Image) -> None:
        """Throw the node away, disk and all, and launch a new one in its place. Without seed data it stays idle."""

    @abstractmethod
    def console(self, node: str) -> str:
        """The text that the node's console has printed, over all its boots; empty before the first one."""

    @abstractmethod
    def memory(self, node: str) -> int | None:
        """Bytes of memory the node uses now, or None where the host can't tell."""

    # -- the end -------------------------------------------------------------------------------------------

    @abstractmethod
    def kill_all(self) -> None:
        """Switch every node off at once, without waiting: the first step of destroying a cluster."""

    @abstractmethod
    def remove(self, resource: Resource) -> None:
        """Remove one resource of the ledger; a resource that isn't there is no error."""
