"""Nodes as virtual machines: Vagrant makes them; afterwards the hypervisor itself has their power."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from swarmer import image as node_image
from swarmer import wait
from swarmer.files import write_private
from swarmer.image import Image, Kind
from swarmer.ledger import Ledger, Resource
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Server, Spec
from swarmer.stacks.base import Capability, Stack
from swarmer.stacks.vagrant import acceleration, plan, providers
from swarmer.stacks.vagrant.command import VagrantCalls

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
        name = providers.default_name()
        self.slowness = 1.0
        if self.plan_file.exists():
            plan = json.loads(self.plan_file.read_text())
            self.slowness = float(plan["slowness"])
            name = plan["provider"]
        self._provider = providers.provider(name)
        self._vagrant = VagrantCalls(
            state=self._state,
            log=self.folder / "vagrant.log",
            variables={
                "SWARMER_VAGRANT_PLAN": str(self.plan_file),
                "VAGRANT_DEFAULT_PROVIDER": name,
                "VAGRANT_EXPERIMENTAL": self._provider.features,
            },
        )

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
        self._provider.check(spec)

    def build_image(self, report: Callable[[str], None]) -> Image:
        built = super().build_image(report)
        node_image.disk(report, self._provider.box)
        return built

    def prepare(self, spec: Spec) -> list[str]:
        self.ledger.record("path", str(self.home.nodes))
        self.home.nodes.mkdir(mode=0o700, exist_ok=True)
        self.ledger.record("path", str(self.folder))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._provider.prepare(self.ledger, self._network)
        current = node_image.find(self.image_kind)
        assert current
        found = self._provider.accelerated(current)
        wait.be_patient(found.slowness(len(spec.servers)))
        write_private(self.plan_file, self.plan(spec, found).json())
        plan.write_catalog(self._catalog, self._provider.name, self._provider.box)
        if not found.emulated:
            return []
        emulated = (
            "no hardware acceleration that works: machines are emulated, and take minutes to boot; "
            f"every deadline is {wait.slowness:.0f} times as long"
        )
        return [sentence for sentence in (emulated, acceleration.kvm_permission_hint()) if sentence]

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
            if name in waiting and self._provider.starting in line:
                waiting.discard(name)
                launched(name)

        turns = len(machines) if self._provider.one_by_one else 1
        self._vagrant.up(deadline=_UP_TIMEOUT * wait.slowness * turns, said=said)

    def make_disks(self, machines: Sequence[tuple[Server, SeedData]]) -> None:
        """All that these machines need besides the network, so that `vagrant up` can make them."""
        self._provider.prepare_box(self.ledger)
        for server, seed in machines:
            folder = self.home.node(server.name)
            folder.mkdir(mode=0o700, exist_ok=True)
            # The hypervisor appends to it; made by us, it is ours to read and to empty.
            self._console_of_this_boot(server.name).touch(mode=0o644)
            self.console(server.name).touch(mode=0o644)
            self._provider.put_seed(self.ledger, self._machine(server.name), folder, seed)

    def made(self, node: str) -> bool:
        """Whether the machine is there, switched on or not."""
        return self._machine(node) in self._provider.machines()

    # -- one node ------------------------------------------------------------------------------------------

    def power_off(self, node: str) -> None:
        self._provider.pull_the_plug(self._machine(node))
        current = self._console_of_this_boot(node)
        if current.exists() and current.stat().st_size:
            with self._console_before(node).open("ab") as before:
                before.write(current.read_bytes())
            current.write_bytes(b"")

    def power_on(self, node: str) -> None:
        self._provider.start(self._machine(node))

    def running(self, node: str) -> bool:
        return self._provider.running(self._machine(node))

    def replace(self, server: Server, seed: SeedData | None, image: Image) -> None:  # noqa: ARG002
        self.power_off(server.name)
        machine = self._machine(server.name)
        self._provider.renew_disk(machine)
        self._provider.put_seed(self.ledger, machine, self.home.node(server.name), seed)
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
        return self._provider.memory(self._machine(node))

    # -- the end -------------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        self._vagrant.end()
        providers.kill(self.ledger.resources)

    def remove(self, resource: Resource) -> None:
        providers.remove(resource, self.home.name)

    # -- names ---------------------------------------------------------------------------------------------

    @property
    def _network(self) -> str:
        return f"swarmer-{self.home.tag}"

    def _machine(self, node: str) -> str:
        return f"{plan.prefix(self.home)}{node}"

    def _mac(self, server: Server) -> str:
        """An address of QEMU's own range, the same for every machine of this name in this cluster."""
        digest = hashlib.sha256(self._machine(server.name).encode()).hexdigest()
        return "52:54:00:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))

    def _console_of_this_boot(self, node: str) -> Path:
        return self.home.node(node) / "console-of-this-boot.log"

    def _console_before(self, node: str) -> Path:
        return self.home.node(node) / "console-before.log"

    @property
    def _catalog(self) -> Path:
        return self.folder / "box.json"

    def plan(self, spec: Spec, found: acceleration.Acceleration) -> plan.Plan:
        """What the Vagrantfile is told; nothing of it need be there yet."""
        machines = [
            plan.Machine(
                name=server.name,
                ip=str(server.ip),
                mac=self._mac(server),
                memory=server.memory,
                cpus=server.cpus,
                box=server.box,
                seed=self._provider.seed(self._machine(server.name), self.home.node(server.name)),
                console=str(self._console_of_this_boot(server.name)),
            )
            for server in spec.servers
        ]
        return plan.Plan(
            cluster=self.home.name,
            file=str(self.plan_file),
            state=str(self._state),
            provider=self._provider.name,
            features=self._provider.features,
            prefix=plan.prefix(self.home),
            network=self._network,
            host=str(spec.host_address),
            netmask=str(spec.admin_network.netmask),
            emulated=found.emulated,
            slowness=wait.slowness,
            boot_timeout=int(_UP_TIMEOUT * wait.slowness),
            ssh_key=str(self.home.ssh / "id_ed25519"),
            machines=machines,
            box=plan.BOX_NAME,
            box_version=plan.box_version(),
            box_url=f"file://{self._catalog}",
        )
