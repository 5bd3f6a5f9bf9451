"""The default stack: nodes as systemd-nspawn containers over the image, with real systemd and cloud-init."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from swarmer.errors import HostError
from swarmer.files import check_takes_overlays, write_private
from swarmer.image import Image
from swarmer.ledger import Resource
from swarmer.seed.cloudinit import SeedData
from swarmer.shell import which
from swarmer.spec import Server, Spec
from swarmer.stacks import host_network
from swarmer.stacks.base import Capability
from swarmer.stacks.bridged import BridgedStack
from swarmer.stacks.nspawn import network
from swarmer.stacks.nspawn.limits import check_inotify
from swarmer.stacks.nspawn.processes import Processes, processes
from swarmer.state import ClusterHome

_CONSOLE = "console.log"
_LAUNCHER = Path(__file__).with_name("launch.sh")
_TOOLS = ("systemd-nspawn", "ip", "nsenter", "unshare", "setsid", "ssh", "nft", "mmdebstrap")
_OTHER_STACK = "use virtual machines instead: --stack=vagrant"

#: With more nodes, consul forms sooner if it starts before the rest of the node; measured by benchmarks/boot.py.
_NODES_PER_PROCESSOR = 2

#: How many clusters of up to three nodes one processor can run the scenarios on, which wait most of the time.
_CLUSTERS_PER_PROCESSOR = 1.5
#: The memory that a node and its containers use at most during the scenarios.
_NODE_MEBIBYTES = 500


class NspawnStack(BridgedStack):
    """Containers boot in seconds and need no hypervisor. They share the host's kernel and clock."""

    name: ClassVar[str] = "nspawn"

    @classmethod
    def preflight(cls, spec: Spec, home: ClusterHome) -> None:
        check_host()
        unfit = set(str(home.folder)) & set(":,\\\"' ")
        if unfit:
            raise HostError(
                f"the path of folder {home.folder} contains characters that overlayfs doesn't support",
                hint="set SWARMER_HOME to a folder without spaces, quotes, backslashes, commas and colons in its path",
            )
        check_takes_overlays(home.folder, "SWARMER_HOME")
        check_inotify(len(spec.servers))
        host_network.check_free(spec)

    @cached_property
    def processes(self) -> Processes:
        """The nodes' processes on this host."""
        return processes(self.home.tag)

    @property
    def missing(self) -> Mapping[Capability, str]:
        shared = "nspawn nodes share the host's kernel"
        return {
            Capability.OWN_KERNEL: shared,
            Capability.CLOCK: "nspawn nodes share the host's clock",
            Capability.IPVS: f"{shared}, which may lack IPVS",
            Capability.NETEM: f"{shared}, which may lack netem",
        }

    @property
    def cpu_contended(self) -> bool:
        return len(self.spec.servers) > _NODES_PER_PROCESSOR * (os.cpu_count() or 1)

    @classmethod
    def side_by_side(cls, spec: Spec) -> tuple[int, str]:
        processors = len(os.sched_getaffinity(0))
        memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(memory["MemAvailable"].split()[0]) // 1024
        nodes = len(spec.servers)
        number = int(processors * _CLUSTERS_PER_PROCESSOR * min(3 / nodes, 1))
        number = max(1, min(number, free // (nodes * _NODE_MEBIBYTES)))
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
        return [f"memory and cpus of servers.yml are not enforced: {unlimited}"] if unlimited else []

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


def check_host() -> None:
    """Refuse a machine that can't run nspawn nodes.

    Raises:
        HostError: the machine doesn't run Linux, the user isn't root, or a tool is missing.
    """
    if os.uname().sysname != "Linux":
        raise HostError("the nspawn stack runs on Linux only", hint=_OTHER_STACK)
    if missing := [tool for tool in _TOOLS if not which(tool)]:
        raise HostError(
            f"the nspawn stack needs {', '.join(missing)}, which this machine lacks",
            hint=f"`make setup` installs it on Debian and Ubuntu; on other systems, {_OTHER_STACK}",
        )
    if os.geteuid() != 0:
        raise HostError(
            "the nspawn stack needs root to create namespaces and mounts",
            hint=f"prefix the command with `bin/as-root`, or {_OTHER_STACK}",
        )
