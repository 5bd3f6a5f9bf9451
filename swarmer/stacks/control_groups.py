"""The control groups of this host: their mount points, and their removal."""

import time
from pathlib import Path

from swarmer import interrupts


def mounts() -> dict[str, Path]:
    """`cgroup2` and each v1 controller to its mount point on this host."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.setdefault("cgroup2", Path(target))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, Path(target))
    return found


def remove(group: Path) -> None:
    """Remove a control group with its children; retries for ten seconds, since a dying process may hold one."""
    if not group.exists():
        return
    for child in [*group.iterdir()]:
        if child.is_dir():
            remove(child)
    deadline = time.monotonic() + 10
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            interrupts.sleep(0.01)
        else:
            return
