"""Vagrant's providers that nodes run with, and the end of what they made."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from swarmer import image as node_image
from swarmer.errors import HostError, SwarmerError
from swarmer.image import Format, Image
from swarmer.ledger import Ledger, Resource
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Spec
from swarmer.stacks import host_network
from swarmer.stacks.vagrant import acceleration, libvirt, plan, virtualbox
from swarmer.stacks.vagrant.acceleration import Acceleration
from swarmer.stacks.vagrant.provider import Provider, check_tools
from swarmer.stacks.vagrant.seed_disk import write_seed_disk
from swarmer.state import cluster_homes

_START: Final = (
    "start one as root: `virtlogd -d && libvirtd -d`, or `systemctl start libvirtd` where systemd runs; "
    "`make scenarios STACK=vagrant` starts one for itself"
)


class Libvirt(Provider):
    """QEMU, by hardware or emulated."""

    name: ClassVar[str] = "libvirt"
    command: ClassVar[str] = "virsh"
    box: ClassVar[Format] = Format.BOX
    starting: ClassVar[str] = "Starting domain"

    def check(self, spec: Spec) -> None:
        check_tools("vagrant", "virsh", "qemu-system-x86_64", "qemu-img", "genisoimage", "ssh", "ip")
        if not libvirt.answers():
            member = "" if os.geteuid() == 0 else "; and be root, or in the group libvirt"
            raise HostError("no libvirt answers on this machine", hint=_START + member)
        host_network.check_free(spec)

    def prepare(self, ledger: Ledger, network: str) -> None:
        spec = ledger.spec
        fence = host_network.reservation_name(ledger.home, spec.admin_network)
        ledger.record("fence", fence)
        ledger.record("network", network)
        bridge = f"sw{ledger.home.tag}"
        libvirt.define_network(network, bridge, spec.host_address, spec.admin_network, internet=spec.internet)
        if os.geteuid() == 0:
            # Not before: libvirt refuses a network that has any route.
            host_network.reserve_subnet(fence)
        libvirt.prepare_pool()

    def accelerated(self, image: Image) -> Acceleration:
        return acceleration.probed(image)

    def prepare_box(self, ledger: Ledger) -> None:
        ledger.record("box", plan.box_volume())
        libvirt.put_box(plan.box_volume(), node_image.disk(lambda _: None))

    def seed(self, machine: str, folder: Path) -> str:  # noqa: ARG002
        return f"{machine}-seed.iso"

    def put_seed(self, ledger: Ledger, machine: str, folder: Path, seed: SeedData | None) -> None:
        volume = self.seed(machine, folder)
        ledger.record("volume", volume)
        ledger.record("volume", f"{machine}.img")
        ledger.record("domain", machine)
        libvirt.put_seed(volume, seed, folder)

    def machines(self) -> list[str]:
        return libvirt.domains()

    def running(self, machine: str) -> bool:
        return libvirt.running(machine)

    def start(self, machine: str) -> None:
        libvirt.start(machine)

    def pull_the_plug(self, machine: str) -> None:
        libvirt.pull_the_plug(machine)

    def memory(self, machine: str) -> int | None:
        return libvirt.resident_memory(machine)

    def renew_disk(self, machine: str) -> None:
        volume = f"{machine}.img"
        backing, size = libvirt.backing_volume(volume)
        libvirt.put_overlay(volume, backing, size)


class VirtualBox(Provider):
    """VirtualBox. Vagrant makes the network, too."""

    name: ClassVar[str] = "virtualbox"
    command: ClassVar[str] = "VBoxManage"
    box: ClassVar[Format] = Format.BOX_VIRTUALBOX
    features: ClassVar[str] = "disks"  # drives, too
    one_by_one: ClassVar[bool] = True
    starting: ClassVar[str] = "Booting VM"

    def check(self, spec: Spec) -> None:
        check_tools("vagrant", "VBoxManage", "genisoimage", "ssh")
        if spec.internet:
            raise HostError(
                "with VirtualBox, nodes reach only each other and this host",
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
            hint="in the folder vagrant, `vagrant destroy NODE` and `vagrant up` make a fresh node",
        )


_PROVIDERS: Final[dict[str, type[Provider]]] = {Libvirt.name: Libvirt, VirtualBox.name: VirtualBox}


def default_name() -> str:
    """The name of the provider that Vagrant would choose: by its variables, or else VirtualBox where that is installed.

    https://developer.hashicorp.com/vagrant/docs/providers/basic_usage
    """
    if given := os.environ.get("VAGRANT_DEFAULT_PROVIDER"):
        return given
    preferred = [name.strip() for name in os.environ.get("VAGRANT_PREFERRED_PROVIDERS", "").split(",")]
    order = [*(name for name in preferred if name in _PROVIDERS), VirtualBox.name]
    return next((name for name in order if shutil.which(_PROVIDERS[name].command)), Libvirt.name)


def provider(name: str) -> Provider:
    """The provider of that name.

    Raises:
        HostError: swarmer doesn't know it.
    """
    if name not in _PROVIDERS:
        raise HostError(
            f"swarmer makes no nodes with Vagrant's provider {name}",
            hint=f"set VAGRANT_DEFAULT_PROVIDER to one of: {', '.join(_PROVIDERS)}",
        )
    return _PROVIDERS[name]()


def remove(resource: Resource, cluster: str) -> None:
    """Remove one resource of a ledger; one that isn't there is no error.

    Raises:
        HostError: something is left, and the hypervisor doesn't answer.
    """
    if resource.kind == "fence":
        host_network.release_subnet(resource.id)
        return
    if resource.kind == "vm":
        virtualbox.remove(resource.id)
        return
    if not libvirt.answers():
        if Path("/run/systemd/system").exists():
            # It knows also what can't be seen from outside, and is only switched off.
            raise HostError(
                f"the {resource.kind} {resource.id} of {cluster} may be left: no libvirt answers", hint=_START
            )
        # A libvirt that runs only as long as a command (bin/with-libvirt) has taken everything with it.
        if left := libvirt.left_without_libvirt(resource.id):
            raise HostError(f"{left} is left of {cluster}, and no libvirt answers", hint=_START)
        if resource.kind == "domain":
            libvirt.remove_control_groups(resource.id)
        return
    match resource.kind:
        case "domain":
            libvirt.remove_domain(resource.id)
        case "volume":
            libvirt.remove_volume(resource.id)
        case "box":
            libvirt.remove_box(resource.id, unless=lambda: _another_lists(resource, cluster))
        case "network":
            libvirt.remove_network(resource.id)
        case other:
            raise AssertionError(f"the vagrant stack makes no {other}")


def _another_lists(box: Resource, cluster: str) -> bool:
    """Whether another cluster's machines are about to be overlays of the box."""
    for home in cluster_homes():
        with suppress(SwarmerError):
            if home.name != cluster and box in Ledger.load(home).resources:
                return True
    return False


def kill(resources: Sequence[Resource]) -> None:
    """Switch off every machine of a ledger, as far as its hypervisor answers."""
    machines = [resource for resource in resources if resource.kind in ("domain", "vm")]
    for machine in machines:
        if machine.kind == "vm":
            virtualbox.pull_the_plug(machine.id)
        elif libvirt.answers():
            libvirt.pull_the_plug(machine.id)
