"""Vagrant's VirtualBox provider; untested, see docs/vagrant.md."""

from pathlib import Path
from typing import ClassVar

from swarmer.errors import HostError
from swarmer.image import Format, Image
from swarmer.ledger import Ledger
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Spec
from swarmer.stacks.vagrant import acceleration, virtualbox
from swarmer.stacks.vagrant.acceleration import Acceleration
from swarmer.stacks.vagrant.provider import Provider, check_tools
from swarmer.stacks.vagrant.seed_disk import write_seed_disk


class VirtualBox(Provider):
    """Machines of VirtualBox on this host. Vagrant also creates the network."""

    name: ClassVar[str] = "virtualbox"
    command: ClassVar[str] = "VBoxManage"
    box: ClassVar[Format] = Format.BOX_VIRTUALBOX
    features: ClassVar[str] = "disks"  # includes DVD drives
    one_by_one: ClassVar[bool] = True
    starting: ClassVar[str] = "Booting VM"

    def check(self, spec: Spec) -> None:
        check_tools("vagrant", "VBoxManage", "genisoimage", "ssh")
        if spec.internet:
            raise HostError(
                "with VirtualBox, nodes can reach only each other and this host",
                hint="set `internet: false` in servers.yml, or use the provider libvirt",
            )

    def prepare(self, ledger: Ledger, network: str) -> None:
        pass

    def accelerated(self, image: Image) -> Acceleration:  # noqa: ARG002
        return acceleration.BY_HARDWARE

    def prepare_box(self, ledger: Ledger) -> None:
        pass

    def seed(self, machine: str, folder: Path) -> str:  # noqa: ARG002
        return str(folder / "seed.iso")

    def put_seed(self, ledger: Ledger, machine: str, folder: Path, seed: SeedData | None) -> None:
        ledger.record("vm", machine)
        write_seed_disk(Path(self.seed(machine, folder)), seed)

    def machines(self) -> list[str]:
        return virtualbox.machines()

    def running(self, machine: str) -> bool:
        return virtualbox.running(machine)

    def start(self, machine: str) -> None:
        virtualbox.start(machine)

    def pull_the_plug(self, machine: str) -> None:
        virtualbox.pull_the_plug(machine)

    def memory(self, machine: str) -> int | None:  # noqa: ARG002
        return None

    def renew_disk(self, machine: str) -> None:
        raise HostError(
            f"swarmer can't replace {machine} with VirtualBox",
            hint="to get a new node, run `vagrant destroy NODE` and `vagrant up` in the folder vagrant",
        )
