"""What is different between Vagrant's providers: the network, disks and power of machines."""

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
    """One of Vagrant's providers. Machines are called by the name that the hypervisor knows."""

    #: As Vagrant calls it.
    name: ClassVar[str]
    #: The hypervisor's own command.
    command: ClassVar[str]
    box: ClassVar[Format]
    #: Of Vagrant, those that must be asked for.
    features: ClassVar[str] = ""
    #: What Vagrant says when it switches a machine on.
    starting: ClassVar[str]
    #: Whether Vagrant makes its machines one after the other.
    one_by_one: ClassVar[bool] = False

    @abstractmethod
    def check(self, spec: Spec) -> None:
        """Refuse a machine that can't run these nodes.

        Raises:
            HostError: with the way out.
        """

    @abstractmethod
    def prepare(self, ledger: Ledger, network: str) -> None:
        """Make what machines share, such as the network of that name."""

    @abstractmethod
    def accelerated(self, image: Image) -> Acceleration:
        """How machines run here."""

    @abstractmethod
    def prepare_box(self, ledger: Ledger) -> None:
        """Have the box at hand."""

    @abstractmethod
    def seed(self, machine: str, folder: Path) -> str:
        """Where the machine's seed disk is: what the Vagrantfile calls it."""

    @abstractmethod
    def put_seed(self, ledger: Ledger, machine: str, folder: Path, seed: SeedData | None) -> None:
        """Make the machine's seed disk, and write down what Vagrant will make of the machine."""

    @abstractmethod
    def machines(self) -> list[str]:
        """All that there are, switched on or not."""

    @abstractmethod
    def running(self, machine: str) -> bool:
        """Whether it is switched on."""

    @abstractmethod
    def start(self, machine: str) -> None:
        """Switch it on."""

    @abstractmethod
    def pull_the_plug(self, machine: str) -> None:
        """Switch it off at once; one that is off, or isn't there, stays so."""

    @abstractmethod
    def memory(self, machine: str) -> int | None:
        """Bytes of the host's memory that it takes, or None where that isn't told."""

    @abstractmethod
    def renew_disk(self, machine: str) -> None:
        """Give a machine that is switched off a fresh disk.

        Raises:
            HostError: Vagrant must do that.
        """


def check_tools(*tools: str) -> None:
    """Refuse a machine that lacks a program.

    Raises:
        HostError: naming all that it lacks.
    """
    if missing := [tool for tool in tools if not which(tool)]:
        raise HostError(
            f"the vagrant stack needs {', '.join(missing)}, which this machine lacks",
            hint="`make setup STACK=vagrant` installs what is for libvirt on Debian and Ubuntu",
        )
