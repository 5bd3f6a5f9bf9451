"""Vagrant's libvirt provider: QEMU, accelerated or emulated."""

import os
from pathlib import Path
from typing import ClassVar, Final

from swarmer import image as node_image
from swarmer.errors import HostError
from swarmer.image import Format, Image
from swarmer.ledger import Ledger
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Spec
from swarmer.stacks import host_network
from swarmer.stacks.vagrant import acceleration, libvirt, plan
from swarmer.stacks.vagrant.acceleration import Acceleration
from swarmer.stacks.vagrant.provider import Provider, check_tools

#: The hint if libvirt doesn't answer.
START_HINT: Final = (
    "start libvirt as root: `systemctl start libvirtd`, or without systemd `virtlogd -d && libvirtd -d`; "
    "`make scenarios STACK=vagrant` starts its own"
)


class Libvirt(Provider):
    """Machines of libvirt on this host."""

    name: ClassVar[str] = "libvirt"
    command: ClassVar[str] = "virsh"
    box: ClassVar[Format] = Format.BOX
    makes_network: ClassVar[bool] = True
    starting: ClassVar[str] = "Starting domain"

    def check(self, spec: Spec) -> None:  # noqa: ARG002
        check_tools("vagrant", "virsh", "qemu-system-x86_64", "qemu-img", "genisoimage", "ssh", "ip")
        if not libvirt.answers():
            member = "" if os.geteuid() == 0 else "; you must be root or in the group libvirt"
            raise HostError("cannot connect to libvirt", hint=START_HINT + member)

    def prepare(self, ledger: Ledger, network: str) -> None:
        spec = ledger.spec
        fence = host_network.reservation_name(ledger.home, spec.admin_network)
        ledger.record("fence", fence)
        ledger.record("network", network)
        bridge = f"sw{ledger.home.tag}"
        libvirt.define_network(network, bridge, spec.host_address, spec.admin_network, internet=spec.internet)
        if os.geteuid() == 0:
            # After the network is defined, because libvirt refuses a network that already has a route.
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
