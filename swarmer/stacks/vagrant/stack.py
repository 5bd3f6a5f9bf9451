"""Nodes as virtual machines: Vagrant creates them; afterwards, swarmer controls their power through the hypervisor."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from swarmer import image as node_image
from swarmer import wait
from swarmer.errors import HostError
from swarmer.files import write_private
from swarmer.image import Image, Kind
from swarmer.ledger import Ledger, Resource
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Server, Spec
from swarmer.stacks import host_network
from swarmer.stacks.base import Capability
from swarmer.stacks.bridged import BridgedStack
from swarmer.stacks.findings import Finding
from swarmer.stacks.vagrant import acceleration, host, plan, providers
from swarmer.stacks.vagrant.command import VagrantCommand
from swarmer.stacks.vagrant.provider import Provider
from swarmer.state import ClusterHome

#: Seconds that `vagrant up` may take, on a machine of usual speed.
_UP_TIMEOUT = 180.0


class VagrantStack(BridgedStack):
    """Virtual machines, each with its own kernel and clock."""

    name: ClassVar[str] = "vagrant"
    image_kind: ClassVar[Kind] = Kind.MACHINE

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.folder = self.home.folder / "vagrant"
        self.plan_file = self.folder / "plan.json"
        self._state = self.folder / "state"

    # -- before a cluster exists ---------------------------------------------------------------------------

    @classmethod
    def preflight(cls, spec: Spec, home: ClusterHome) -> None:  # noqa: ARG003
        provider = providers.provider(providers.default_name())
        provider.check(spec)
        if provider.makes_network:
            host_network.check_free(spec)

    @classmethod
    def examine(cls, spec: Spec, home: ClusterHome) -> Iterator[Finding]:
        yield from host.examine(spec, home)

    @classmethod
    def build_image(cls, report: Callable[[str], None]) -> Image:
        built = super().build_image(report)
        node_image.disk(report, providers.provider(providers.default_name()).box)
        return built

    # -- properties ----------------------------------------------------------------------------------------

    @property
    def missing(self) -> Mapping[Capability, str]:
        return {}

    @property
    def measured_slowness(self) -> float:
        written = self._written_plan()
        return float(written["slowness"]) if written else 1.0

    def interface(self, server: Server) -> Mapping[str, Mapping[str, Any]]:
        return {"admin": {"match": {"macaddress": self._mac(server)}}}

    def logs(self) -> list[Path]:
        return [self._vagrant.log] if self._vagrant.log.exists() else []

    # -- the whole cluster ---------------------------------------------------------------------------------

    def prepare(self, image: Image) -> list[str]:
        self.ledger.record("path", str(self.home.nodes))
        self.home.nodes.mkdir(mode=0o700, exist_ok=True)
        self.ledger.record("path", str(self.folder))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._provider.prepare(self.ledger, self._network)
        found = self._provider.accelerated(image)
        slowness = wait.given_slowness() or found.slowness(len(self.spec.servers))
        write_private(self.plan_file, self.plan(found, slowness).json())
        plan.write_catalog(self._catalog, self._provider.name, self._provider.box)
        if not found.emulated:
            return []
        emulated = (
            "hardware acceleration doesn't work on this host: machines are emulated, with one processor each, and take "
            f"minutes to boot; all deadlines are multiplied by {slowness:.0f}"
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

        def on_line(line: str) -> None:
            name = line.strip().removeprefix("==> ").split(":")[0]
            if name in waiting and self._provider.starting in line:
                waiting.discard(name)
                launched(name)

        turns = len(machines) if self._provider.one_by_one else 1
        self._vagrant.up(deadline=_UP_TIMEOUT * self.slowness * turns, on_line=on_line)

    def make_disks(self, machines: Sequence[tuple[Server, SeedData]]) -> None:
        """Create everything besides the network that `vagrant up` needs for these machines."""
        self._provider.prepare_box(self.ledger)
        for server, seed in machines:
            folder = self.home.node(server.name)
            folder.mkdir(mode=0o700, exist_ok=True)
            # The hypervisor appends to this file. Created here, it can be read and emptied by this user.
            self._console_of_this_boot(server.name).touch(mode=0o644)
            self._provider.put_seed(self.ledger, self._machine(server.name), folder, seed)

    def made(self, node: str) -> bool:
        """Whether the machine exists, switched on or not."""
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

    def console(self, node: str) -> str:
        parts = (self._console_before(node), self._console_of_this_boot(node))
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    def memory(self, node: str) -> int | None:
        return self._provider.memory(self._machine(node))

    # -- removal -------------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        self._vagrant.end()
        providers.kill(self.ledger.resources)

    def remove(self, resource: Resource) -> None:
        providers.remove(resource, self.home.name)

    # -- names ---------------------------------------------------------------------------------------------

    @cached_property
    def _provider(self) -> Provider:
        """The provider of the existing machines, or the default one if none have been created yet."""
        written = self._written_plan()
        return providers.provider(written["provider"] if written else providers.default_name())

    @cached_property
    def _vagrant(self) -> VagrantCommand:
        return VagrantCommand(
            state=self._state,
            log=self.folder / "vagrant.log",
            variables={
                "SWARMER_VAGRANT_PLAN": str(self.plan_file),
                "VAGRANT_DEFAULT_PROVIDER": self._provider.name,
                "VAGRANT_EXPERIMENTAL": self._provider.features,
            },
        )

    def _written_plan(self) -> Mapping[str, Any] | None:
        """The plan that `prepare` has written; None before that.

        Raises:
            HostError: the plan can't be read.
        """
        try:
            written: Mapping[str, Any] = json.loads(self.plan_file.read_text())
            return written
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise HostError(
                f"the plan {self.plan_file} can't be read: {error}",
                hint=f"remove the cluster: `swarmer down {self.home.name}`",
            ) from error

    @property
    def _network(self) -> str:
        return f"swarmer-{self.home.tag}"

    def _machine(self, node: str) -> str:
        return f"{plan.prefix(self.home)}{node}"

    def _mac(self, server: Server) -> str:
        """A MAC address in QEMU's range, derived from the name of the machine, so a replaced node keeps it."""
        digest = hashlib.sha256(self._machine(server.name).encode()).hexdigest()
        return "52:54:00:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))

    def _console_of_this_boot(self, node: str) -> Path:
        return self.home.node(node) / "console-of-this-boot.log"

    def _console_before(self, node: str) -> Path:
        return self.home.node(node) / "console-before.log"

    @property
    def _catalog(self) -> Path:
        return self.folder / "box.json"

    def plan(self, found: acceleration.Acceleration, slowness: float) -> plan.Plan:
        """The plan of the machines, whether they exist or not."""
        spec = self.spec
        machines = [
            plan.Machine(
                name=server.name,
                ip=str(server.ip),
                mac=self._mac(server),
                memory=server.memory,
                cpus=1 if found.emulated else server.cpus,
                box=server.vagrant.box or spec.vagrant.box,
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
            slowness=slowness,
            boot_timeout=int(_UP_TIMEOUT * slowness),
            ssh_key=str(self.home.ssh / "id_ed25519"),
            machines=machines,
            box=plan.BOX_NAME,
            box_version=plan.box_version(),
            box_url=f"file://{self._catalog}",
        )
