"""The processes of nspawn nodes: started, limited and killed as one group per node.

On a host with systemd, each node is a transient unit. On other hosts, swarmer creates a control group per node: in the
v2 tree and, if the controllers are still v1, in their trees too.
"""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from swarmer.errors import HostError
from swarmer.shell import capture, run
from swarmer.spec import Server
from swarmer.stacks import control_groups
from swarmer.wait import until_true

#: Seconds within which the first process of a node must start; ample for a busy host.
_START_TIMEOUT = 60.0

#: The period of the CPU bandwidth controller, in µs.
_PERIOD = 100_000


class Processes(ABC):
    """The processes of the nodes of one cluster, which is identified by its tag."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    @property
    def fresh_cgroup2(self) -> bool:
        """Whether a node must mount its own v2 tree, because the host's isn't at /sys/fs/cgroup."""
        return False

    @abstractmethod
    def start(self, server: Server, command: Sequence[str], variables: Mapping[str, str], console: Path) -> None:
        """Start `command` as the first process of a node, with the node's limits for memory and cpus."""

    @abstractmethod
    def kill(self, node: str) -> None:
        """Kill all processes of a node immediately, without waiting for their end."""

    @abstractmethod
    def running(self, node: str) -> bool:
        """Whether any process of the node is alive."""

    @abstractmethod
    def memory(self, node: str) -> int | None:
        """The memory that the node's processes use, in bytes; None if it isn't accounted."""

    def remove(self, node: str) -> None:
        """Kill all processes of a node, wait for their end, and remove their group."""
        self.kill(node)
        until_true(f"the end of all processes of {node}", lambda: not self.running(node), timeout=20, interval=0.02)

    @property
    @abstractmethod
    def unlimited(self) -> str:
        """The reason why memory and cpus can't be limited on this host; empty if they can."""


class SystemdUnits(Processes):
    """Each node is a transient service of the host's systemd."""

    @property
    def unlimited(self) -> str:
        return ""

    def _unit(self, node: str) -> str:
        return f"swarmer-{self.tag}-{node}.service"

    def start(self, server: Server, command: Sequence[str], variables: Mapping[str, str], console: Path) -> None:
        properties = {
            "Delegate": "yes",
            "Slice": "machine.slice",
            "MemoryMax": f"{server.memory}M",
            "CPUQuota": f"{server.cpus * 100}%",
            "TasksMax": "infinity",
            "StandardOutput": f"append:{console}",
            "StandardError": f"append:{console}",
        }
        run(
            ["systemd-run", "--quiet", "--collect", f"--unit={self._unit(server.name)}"]
            + [f"--property={name}={value}" for name, value in properties.items()]
            + [f"--setenv={name}={value}" for name, value in variables.items()]
            + list(command)
        )

    def kill(self, node: str) -> None:
        run(["systemctl", "kill", "--signal=KILL", self._unit(node)], check=False)

    def running(self, node: str) -> bool:
        state = run(["systemctl", "show", "--property=ActiveState", "--value", self._unit(node)])
        return state.stdout.strip() not in ("inactive", "failed")

    def memory(self, node: str) -> int | None:
        shown = run(["systemctl", "show", "--property=MemoryCurrent", "--value", self._unit(node)]).stdout.strip()
        return int(shown) if shown.isdigit() else None


class ControlGroups(Processes):
    """Each node is a control group that swarmer creates."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        mounts = control_groups.mounts()
        if not (unified := mounts.get("cgroup2")):
            raise HostError(
                "this host has no cgroup v2 tree, which the nodes' systemd requires",
                hint="mount one: `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`",
            )
        self._unified = unified
        self._memory = mounts.get("memory")
        self._cpu = mounts.get("cpu")

    @property
    def unlimited(self) -> str:
        if self._memory and self._cpu:
            return ""
        return "swarmer can't use control groups for memory and cpus on this host"

    @property
    def fresh_cgroup2(self) -> bool:
        return self._unified != Path("/sys/fs/cgroup")

    def _group(self, root: Path, node: str) -> Path:
        return root / f"swarmer-{self.tag}" / node

    def _groups(self, node: str) -> list[Path]:
        return [self._group(root, node) for root in (self._unified, self._memory, self._cpu) if root]

    def start(self, server: Server, command: Sequence[str], variables: Mapping[str, str], console: Path) -> None:
        groups = self._groups(server.name)
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
        if self._memory:
            (self._group(self._memory, server.name) / "memory.limit_in_bytes").write_text(f"{server.memory}M")
        if self._cpu:
            group = self._group(self._cpu, server.name)
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(_PERIOD * server.cpus))
        # The shell joins the groups before it forks the node, so the groups are never empty in between.
        # --fork: the node isn't a child of this process, and outlives it if the cluster is kept.
        join = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in groups)
        try:
            with console.open("a") as output:
                done = capture(
                    ["sh", "-ec", f'{join}; exec setsid --fork "$@"', "sh", *command],
                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=_START_TIMEOUT,
                )
        except subprocess.TimeoutExpired:
            raise HostError(f"{server.name} did not start within {_START_TIMEOUT:.0f} s") from None
        if done.returncode:
            raise HostError(f"cannot start {server.name}", hint=f"its console output has the reason: {console}")

    def kill(self, node: str) -> None:
        group = self._groups(node)[0]
        if group.exists():
            (group / "cgroup.kill").write_text("1")

    def running(self, node: str) -> bool:
        events = self._groups(node)[0] / "cgroup.events"
        return events.exists() and "populated 1" in events.read_text()

    def memory(self, node: str) -> int | None:
        if not self._memory:
            return None
        usage = (self._group(self._memory, node) / "memory.stat").read_text()
        fields = dict(line.split() for line in usage.splitlines())
        return int(fields["total_rss"]) + int(fields["total_shmem"])

    def remove(self, node: str) -> None:
        super().remove(node)
        for group in self._groups(node):
            control_groups.remove(group)
            if group.parent.exists() and not any(child.is_dir() for child in group.parent.iterdir()):
                group.parent.rmdir()


def processes(tag: str) -> Processes:
    """The implementation for this host: transient units if systemd runs it, else control groups.

    Raises:
        HostError: the host has no control groups v2, or its systemd doesn't use them.
    """
    if not Path("/run/systemd/system").is_dir():
        return ControlGroups(tag)
    if control_groups.mounts().get("cgroup2") != Path("/sys/fs/cgroup"):
        raise HostError(
            "the systemd of this host uses control groups v1, but that of the nodes requires v2",
            hint="boot the host with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
        )
    return SystemdUnits(tag)
