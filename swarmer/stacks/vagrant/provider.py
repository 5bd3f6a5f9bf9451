"""The interface to Vagrant's providers, which differ in the network, disks and power of machines."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from swarmer.errors import HostError
from swarmer.image import Format, Image
from swarmer.ledger import Ledger
from swarmer.seed.cloudinit import SeedData
from swarmer.shell import which
from swarmer.spec import Spec
from swarmer.stacks.vagrant.acceleration import Acceleration


class Provider(ABC):
    """One of Vagrant's providers. Machines are identified by their name in the hypervisor."""

    #: The name that Vagrant uses.
    name: ClassVar[str]
    #: The hypervisor's command-line tool.
    command: ClassVar[str]
    box: ClassVar[Format]
    #: Vagrant's experimental features to enable.
    features: ClassVar[str] = ""
    #: Part of the line that Vagrant prints when it switches a machine on.
    starting: ClassVar[str]
    #: Whether Vagrant creates machines one after the other.
    one_by_one: ClassVar[bool] = False

    #: Whether `prepare` creates the network, which must not be in use on this host.
    makes_network: ClassVar[bool] = False

    @abstractmethod
    def check(self, spec: Spec) -> None:
        """Refuse a host that can't run these nodes, whatever network they use.

        Raises:
            HostError: with a hint.
        """

    @abstractmethod
    def prepare(self, ledger: Ledger, network: str) -> None:
        """Create what machines share, such as the network of that name."""

    @abstractmethod
    def accelerated(self, image: Image) -> Acceleration:
        """How machines run on this host."""

    @abstractmethod
    def prepare_box(self, ledger: Ledger) -> None:
        """Provide the box to the hypervisor."""

    @abstractmethod
    def seed(self, machine: str, folder: Path) -> str:
        """The machine's seed disk as the Vagrantfile refers to it: a volume or a file."""

    @abstractmethod
    def put_seed(self, ledger: Ledger, machine: str, folder: Path, seed: SeedData | None) -> None:
        """Create the machine's seed disk, and record the resources that Vagrant will create for the machine."""

    @abstractmethod
    def machines(self) -> list[str]:
        """All existing machines, switched on or not."""

    @abstractmethod
    def running(self, machine: str) -> bool:
        """Whether the machine is switched on."""

    @abstractmethod
    def start(self, machine: str) -> None:
        """Switch the machine on."""

    @abstractmethod
    def pull_the_plug(self, machine: str) -> None:
        """Switch the machine off immediately; it may already be off, or not exist."""

    @abstractmethod
    def memory(self, machine: str) -> int | None:
        """The host's memory that the machine uses, in bytes; None if the hypervisor doesn't report it."""

    @abstractmethod
    def renew_disk(self, machine: str) -> None:
        """Replace the disk of a machine that is switched off by a new one.

        Raises:
            HostError: only Vagrant can do that with this provider.
        """


def check_tools(*tools: str) -> None:
    """Refuse a host that lacks a program.

    Raises:
        HostError: the message names all missing programs.
    """
    if missing := [tool for tool in tools if not which(tool)]:
        raise HostError(
            f"the vagrant stack needs {', '.join(missing)}, which this machine lacks",
            hint="`make setup STACK=vagrant` installs the programs for libvirt on Debian and Ubuntu",
        )
