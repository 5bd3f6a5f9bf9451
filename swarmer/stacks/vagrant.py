"""Nodes as virtual machines: Vagrant makes them, with libvirt; afterwards libvirt itself has their power."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, ClassVar

from swarmer import image as node_image
from swarmer import wait
from swarmer.cloudinit import SeedData
from swarmer.errors import HostError
from swarmer.files import write_private
from swarmer.image import Format, Image, Kind
from swarmer.ledger import Ledger, Resource
from swarmer.spec import Server, Spec
from swarmer.stacks import acceleration, host_network, libvirt, vagrant_plan
from swarmer.stacks.base import Capability, Stack
from swarmer.stacks.vagrant_calls import VagrantCalls

_TOOLS = ("vagrant", "virsh", "qemu-system-x86_64", "qemu-img", "genisoimage", "ssh", "ip")

#: Seconds that `vagrant up` may take, on a machine of usual speed.
_UP_TIMEOUT = 180.0


class VagrantStack(Stack):
    """Virtual machines with a kernel and a clock of their own."""

    name: ClassVar[str] = "vagrant"
    image_kind: ClassVar[Kind] = Kind.MACHINE

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.folder = self.home.folder / "vagrant"
        self.plan_file = self.folder / "plan.json"
        self._state = self.folder / "state"
        self._vagrant = VagrantCalls(plan=self.plan_file, state=self._state, log=self.folder / "vagrant.log")
        if self.plan_file.exists():
            wait.be_patient(float(json.loads(self.plan_file.read_text())["slowness"]))

    # -- what it offers ------------------------------------------------------------------------------------

    @property
    def missing(self) -> Mapping[Capability, str]:
        return {}

    def interface(self, server: Server) -> Mapping[str, Any]:
        return {"admin": {"match": {"macaddress": self._mac(server)}}}

    def logs(self) -> list[Path]:
        return [self._vagrant.log] if self._vagrant.log.exists() else []

    # -- the whole cluster ---------------------------------------------------------------------------------

    def preflight(self, spec: Spec) -> None:
        check_host()
        host_network.check_free(spec)

    def build_image(self, report: Callable[[str], None]) -> Image:
        built = super().build_image(report)
        node_image.disk(report, Format.BOX)
        return built

    def prepare(self, spec: Spec) -> list[str]:
        self.ledger.intend("path", str(self.home.nodes))
        self.home.nodes.mkdir(mode=0o700, exist_ok=True)
        self.ledger.intend("path", str(self.folder))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.ledger.intend("fence", str(spec.admin_network))
        self.ledger.intend("network", self._network)
        libvirt.define_network(
            self._network, f"sw{self.home.tag}", spec.host_address, spec.admin_network, internet=spec.internet
        )
        if os.geteuid() == 0:
            # Not before: libvirt refuses a network that has any route.
            host_network.fence(spec.admin_network)
        libvirt.prepare_pool()
        current = node_image.find(self.image_kind)
        assert current
        found = acceleration.probed(current)
        wait.be_patient(found.slowness(len(spec.servers)))
        write_private(self.plan_file, self.plan(spec, found).json())
        vagrant_plan.write_catalog(self._catalog)
        if not found.emulated:
            return []
        return [
            "no hardware acceleration that works: machines are emulated, and take minutes to boot; "
            f"every deadline is {wait.slowness:.0f} times as long"
        ]

    def launch_all(
        self,
        machines: Sequence[tuple[Server, SeedData]],
        image: Image,  # noqa: ARG002
        *,
        launched: Callable[[str], None],
    ) -> None:
        self.make_disks(machines)
        waiting = {server.name for server, _ in machines}

        def said(line: str) -> None:
            name = line.strip().removeprefix("==> ").split(":")[0]
            if name in waiting and "Starting domain" in line:
                waiting.discard(name)
                launched(name)

        self._vagrant.up(deadline=_UP_TIMEOUT * wait.slowness, said=said)

    def make_disks(self, machines: Sequence[tuple[Server, SeedData]]) -> None:
        """All that these machines need besides the network, so that `vagrant up` can make them."""
        self.ledger.intend("box", vagrant_plan.box_volume())
        libvirt.put_box(vagrant_plan.box_volume(), node_image.disk(lambda _: None))
        for server, seed in machines:
            domain = self._domain(server.name)
            self.ledger.intend("volume", self._seed(server.name))
            self.ledger.intend("volume", f"{domain}.img")
            self.ledger.intend("domain", domain)
            self.home.node(server.name).mkdir(mode=0o700, exist_ok=True)
            self.console(server.name).touch(mode=0o644)
            libvirt.put_seed(self._seed(server.name), seed)

    def made(self, node: str) -> bool:
        """Whether the machine is there, switched on or not."""
        return self._domain(node) in libvirt.domains()

    # -- one node ------------------------------------------------------------------------------------------

    def power_off(self, node: str) -> None:
        libvirt.pull_the_plug(self._domain(node))
        current = self._console_of_this_boot(node)
        if current.exists() and current.stat().st_size:
            with self._console_before(node).open("ab") as before:
                before.write(current.read_bytes())
            current.write_bytes(b"")

    def power_on(self, node: str) -> None:
        libvirt.start(self._domain(node))

    def running(self, node: str) -> bool:
        return libvirt.running(self._domain(node))

    def replace(self, server: Server, seed: SeedData | None, image: Image) -> None:  # noqa: ARG002
        self.power_off(server.name)
        volume = f"{self._domain(server.name)}.img"
        backing, size = libvirt.backing_volume(volume)
        libvirt.put_overlay(volume, backing, size)
        libvirt.put_seed(self._seed(server.name), seed)
        self._console_before(server.name).unlink(missing_ok=True)
        self.power_on(server.name)

    def console(self, node: str) -> Path:
        whole = self.home.node(node) / "console.log"
        before, current = self._console_before(node), self._console_of_this_boot(node)
        parts = [part.read_bytes() for part in (before, current) if part.exists()]
        if parts:
            whole.write_bytes(b"".join(parts))
        return whole

    def memory(self, node: str) -> int | None:
        return libvirt.resident_memory(self._domain(node))

    # -- the end -------------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        for resource in self.ledger.resources:
            if resource.kind == "domain" and libvirt.answers():
                libvirt.pull_the_plug(resource.id)

    def remove(self, resource: Resource) -> None:
        if resource.kind == "fence":
            host_network.unfence(IPv4Network(resource.id))
            return
        if not libvirt.answers():
            # A libvirt that runs only as long as a command (bin/with-libvirt) has taken everything with it.
            if left := libvirt.left_without_libvirt(resource.id):
                raise HostError(f"{left} is left of {self.home.name}, and no libvirt answers", hint=_START)
            return
        match resource.kind:
            case "domain":
                libvirt.remove_domain(resource.id)
            case "volume":
                libvirt.remove_volume(resource.id)
            case "box":
                if not any(name.startswith("swarmer-") for name in libvirt.domains()):
                    libvirt.remove_volume(resource.id)
            case "network":
                libvirt.remove_network(resource.id)
            case other:
                raise AssertionError(f"the vagrant stack makes no {other}")

    # -- names ---------------------------------------------------------------------------------------------

    @property
    def _network(self) -> str:
        return f"swarmer-{self.home.tag}"

    def _domain(self, node: str) -> str:
        return f"{vagrant_plan.prefix(self.home)}{node}"

    def _seed(self, node: str) -> str:
        return f"{self._domain(node)}-seed.iso"

    def _mac(self, server: Server) -> str:
        """An address of QEMU's own range, the same for every machine of this name in this cluster."""
        digest = hashlib.sha256(self._domain(server.name).encode()).hexdigest()
        return "52:54:00:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))

    def _console_of_this_boot(self, node: str) -> Path:
        return self.home.node(node) / "console-of-this-boot.log"

    def _console_before(self, node: str) -> Path:
        return self.home.node(node) / "console-before.log"

    @property
    def _catalog(self) -> Path:
        return self.folder / "box.json"

    def plan(self, spec: Spec, found: acceleration.Acceleration) -> vagrant_plan.Plan:
        """What the Vagrantfile is told; nothing of it need be there yet."""
        machines = [
            vagrant_plan.Machine(
                name=server.name,
                ip=str(server.ip),
                mac=self._mac(server),
                memory=server.memory,
                cpus=server.cpus,
                box=server.box,
                seed=self._seed(server.name),
                console=str(self._console_of_this_boot(server.name)),
            )
            for server in spec.servers
        ]
        return vagrant_plan.Plan(
            cluster=self.home.name,
            file=str(self.plan_file),
            state=str(self._state),
            prefix=vagrant_plan.prefix(self.home),
            network=self._network,
            netmask=str(spec.admin_network.netmask),
            emulated=found.emulated,
            slowness=wait.slowness,
            boot_timeout=int(_UP_TIMEOUT * wait.slowness),
            ssh_key=str(self.home.ssh / "id_ed25519"),
            machines=machines,
            box=vagrant_plan.BOX_NAME,
            box_version=vagrant_plan.box_version(),
            box_url=f"file://{self._catalog}",
        )


_START = (
    "start one as root: `virtlogd -d && libvirtd -d`, or `systemctl start libvirtd` where systemd runs; "
    "`make scenarios STACK=vagrant` starts one for itself"
)


def check_host() -> None:
    """Refuse a machine that can't run Vagrant with libvirt.

    Raises:
        HostError: a missing tool, or no libvirt that answers.
    """
    path = f"{os.environ.get('PATH')}:/usr/sbin:/sbin"
    if missing := [tool for tool in _TOOLS if not shutil.which(tool, path=path)]:
        raise HostError(
            f"the vagrant stack needs {', '.join(missing)}, which this machine lacks",
            hint="`make setup STACK=vagrant` installs it on Debian and Ubuntu",
        )
    if not libvirt.answers():
        member = "" if os.geteuid() == 0 else "; and be root, or in the group libvirt"
        raise HostError("no libvirt answers on this machine", hint=_START + member)
