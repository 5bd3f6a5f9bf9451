"""Limits of the host's kernel that a large cluster may exceed."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from swarmer.errors import HostError

_INSTANCES: Final = Path("/proc/sys/fs/inotify/max_user_instances")

#: Inotify instances of one node: three of its systemd, one of the process that follows its journal.
_PER_NODE: Final = 4


def check_inotify(nodes: int) -> None:
    """Refuse more nodes than the kernel has inotify instances for: their systemd would hang at boot without a message.

    Root on a node is root on the host, so all nodes share the limit of that user.

    Raises:
        HostError: the hint names the sysctl that raises the limit.
    """
    limit, used = int(_INSTANCES.read_text()), _used()
    if used + _PER_NODE * nodes > limit:
        enough = 1 << (used + _PER_NODE * nodes).bit_length()
        raise HostError(
            f"{nodes} nodes need {_PER_NODE * nodes} inotify instances; this host allows root {limit}, "
            f"of which {used} are in use",
            hint=f"raise the limit: `sysctl fs.inotify.max_user_instances={enough}`",
        )


def _used() -> int:
    """The inotify instances of root, on this host and in every container."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            if process.stat().st_uid == 0:
                count += sum(map(_is_inotify, (process / "fd").iterdir()))
    return count


def _is_inotify(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()) == "anon_inode:inotify"
    except OSError:  # the descriptor has just been closed
        return False
