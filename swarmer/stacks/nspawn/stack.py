"""The default stack: nodes as systemd-nspawn containers over the image, with real systemd and cloud-init."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from swarmer.errors import HostError
from swarmer.files import write_private
from swarmer.image import Image
from swarmer.ledger import Resource
from swarmer.seed.cloudinit import SeedData
from swarmer.spec import Server, Spec
from swarmer.stacks import host_network
from swarmer.stacks.base import Capability
from swarmer.stacks.bridged import BridgedStack
from swarmer.stacks.findings import Finding, available_memory
from swarmer.stacks.nspawn import host, network
from swarmer.stacks.nspawn.host import NODE_MEBIBYTES, NODES_PER_PROCESSOR
from swarmer.stacks.nspawn.limits import check_inotify
from swarmer.stacks.nspawn.processes import Processes, processes
from swarmer.state import ClusterHome

_CONSOLE = "console.log"
_LAUNCHER = Path(__file__).with_name("launch.sh")

#: How many clusters of up to three nodes one processor can run the scenarios on, which wait most of the time.
_CLUSTERS_PER_PROCESSOR = 1.5


class NspawnStack(BridgedStack):
    """Containers boot in seconds and need no hypervisor. They share the host's kernel and clock."""

    name: ClassVar[str] = "nspawn"

    @classmethod
    def preflight(cls, spec: Spec, home: ClusterHome) -> None:
        host.check_host()
        host.check_folder(home)
        processes(home.tag)
        check_inotify(len(spec.servers))
        host_network.check_free(spec)

    @classmethod
    def examine(cls, spec: Spec, home: ClusterHome) -> Iterator[Finding]:
        try:
            of_nodes: Processes | HostError = processes(home.tag)
        except HostError as error:
            of_nodes = error
        yield from host.examine(spec, home, of_nodes)

    @cached_property
    def processes(self) -> Processes:
        """The nodes' processes on this host."""
        return processes(self.home.tag)

    @property
    def missing(self) -> Mapping[Capability, str]:
        return host.missing(self.processes)

    @property
    def cpu_contended(self) -> bool:
        return len(self.spec.servers) > NODES_PER_PROCESSOR * (os.cpu_count() or 1)

    @classmethod
    def side_by_side(cls, spec: Spec) -> tuple[int, str]:
        processors = len(os.sched_getaffinity(0))
        free = available_memory()
        nodes = len(spec.servers)
        number = int(processors * _CLUSTERS_PER_PROCESSOR * min(3 / nodes, 1))
        number = max(1, min(number, free // (nodes * NODE_MEBIBYTES)))
        return number, f"{processors} processors, {free} MiB of free memory, {nodes} nodes each"

    def interface(self, server: Server) -> Mapping[str, Mapping[str, str]]:  # noqa: ARG002
        return {"host0": {}}

    def prepare(self, image: Image) -> list[str]:  # noqa: ARG002
        self.ledger.record("path", str(self.home.nodes))
        self.home.nodes.mkdir(mode=0o700, exist_ok=True)
        fence = host_network.reservation_name(self.home, self.spec.admin_network)
        self.ledger.record("fence", fence)
        host_network.reserve_subnet(fence)
        host_network.check_free(self.spec, fence=fence)
        self.ledger.record("network", network.namespace(self.home))
        network.create(self.home, self.spec)
        unlimited = self.processes.unlimited
        unenforced = f"memory and cpus of servers.yml are not enforced: {unlimited}" if unlimited else ""
        return [sentence for sentence in (unenforced, host.note(self.missing)) if sentence]

    def launch_all(
        self, machines: Sequence[tuple[Server, SeedData]], image: Image, *, launched: Callable[[str], None]
    ) -> None:
        for server, seed in machines:
            self._launch(server, seed, image)
            launched(server.name)

    def _launch(self, server: Server, seed: SeedData | None, image: Image) -> None:
        self.ledger.record("processes", server.name)
        folder = self.home.node(server.name)
        for part in ("root", "upper", "work", "docker"):
            (folder / part).mkdir(parents=True)
        # The image has these directories too, but the mode in the upper layer takes precedence.
        seed_folder = folder
        for part in ("upper", "var", "lib", "cloud", "seed", "nocloud"):
            seed_folder /= part
            seed_folder.mkdir(exist_ok=True)
            seed_folder.chmod(0o755)
        for name, content in seed.files().items() if seed else ():
            write_private(seed_folder / name, content)
        (folder / "lowerdir").write_text(image.lowerdir)
        self.power_on(server.name)

    def power_off(self, node: str) -> None:
        self.processes.remove(node)

    def power_on(self, node: str) -> None:
        folder = self.home.node(node)
        variables = {
            "NAME": node,
            "NODE": str(folder),
            "BRIDGE": network.BRIDGE,
            "LOWERDIR": (folder / "lowerdir").read_text(),
            "FRESH_CGROUP2": "1" if self.processes.fresh_cgroup2 else "0",
        }
        inside = f"--net=/run/netns/{network.namespace(self.home)}"
        command = ["nsenter", inside, "unshare", "--mount", "--propagation=slave", "sh", str(_LAUNCHER)]
        self.ledger.record("processes", node)
        self.processes.start(self.spec.server(node), command, variables, folder / _CONSOLE)

    def running(self, node: str) -> bool:
        return self.processes.running(node)

    def replace(self, server: Server, seed: SeedData | None, image: Image) -> None:
        self.power_off(server.name)
        shutil.rmtree(self.home.node(server.name), ignore_errors=True)
        self._launch(server, seed, image)

    def console(self, node: str) -> str:
        file = self.home.node(node) / _CONSOLE
        return file.read_text(errors="replace") if file.exists() else ""

    def memory(self, node: str) -> int | None:
        return self.processes.memory(node)

    def kill_all(self) -> None:
        for resource in self.ledger.resources:
            if resource.kind == "processes":
                self.processes.kill(resource.id)

    def remove(self, resource: Resource) -> None:
        match resource.kind:
            case "processes":
                self.processes.remove(resource.id)
            case "network":
                network.remove(self.home)
            case "fence":
                host_network.release_subnet(resource.id)
            case other:
                raise AssertionError(f"unknown kind of resource in the nspawn stack: {other}")
