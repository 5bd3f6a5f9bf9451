"""What every stack can do: the machines under a cluster, without knowing what runs on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from swarmer import image as node_image
from swarmer.image import Image, Kind
from swarmer.ledger import Ledger, Resource
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Server, Spec


class Capability(StrEnum):
    """What a scenario may need of its stack, beyond running nodes."""

    OWN_KERNEL = "own-kernel"
    IPVS = "ipvs"
    NETEM = "netem"
    CLOCK = "clock"


class Stack(ABC):
    """Where the nodes of one cluster run. Every resource goes into the ledger before it is made.

    Attributes:
        slowness: the factor by which deadlines are longer than usual here, as far as it is known before `prepare`.
    """

    name: ClassVar[str]
    #: Whether nodes bring a kernel of their own.
    image_kind: ClassVar[Kind] = Kind.CONTAINER
    slowness: float = 1.0

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.home = ledger.home

    @property
    @abstractmethod
    def missing(self) -> Mapping[Capability, str]:
        """The capabilities this stack lacks on this machine, each with the reason a skip shows."""

    @property
    def cpu_contended(self) -> bool:
        """Whether nodes share so few processors that what they do side by side at boot takes turns."""
        return False

    @abstractmethod
    def interface(self, server: Server) -> Mapping[str, Any]:
        """How network configuration names a node's admin interface."""

    @abstractmethod
    def preflight(self, spec: Spec) -> None:
        """Refuse, before anything is made, what can't work on this machine.

        Raises:
            HostError: with the way out.
        """

    @abstractmethod
    def prepare(self, spec: Spec) -> list[str]:
        """Make what the nodes share, such as their network. Returns notes that a person should read once."""

    def build_image(self, report: Callable[[str], None]) -> Image:
        """The image for nodes here, built as far as it isn't there yet."""
        return node_image.build(report, kind=self.image_kind)

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
        """What the tools under this stack have written down, for a person who looks for a failure."""
        return []

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
    def console(self, node: str) -> Path:
        """The file that holds all the node's console said, over all its boots."""

    @abstractmethod
    def memory(self, node: str) -> int | None:
        """Bytes of memory the node uses now, or None where the host can't tell."""

    @abstractmethod
    def kill_all(self) -> None:
        """Switch every node off at once, without waiting: the first step of destroying a cluster."""

    @abstractmethod
    def remove(self, resource: Resource) -> None:
        """Remove one resource of the ledger; a resource that isn't there is no error."""
