"""Private files: folders have mode 0700, files 0600, and files are written atomically."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmer import interrupts
from swarmer.errors import HostError, SwarmerError
from swarmer.shell import run

#: Seconds between two attempts to take a lock.
_LOCK_INTERVAL = 0.02


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can enter, and missing parents with the same mode."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


def check_takes_overlays(folder: Path, variable: str) -> None:
    """Check that a folder can hold the writable layer of an overlayfs; the root of a container can't.

    Args:
        variable: the environment variable that selects another folder, for the hint.

    Raises:
        HostError: `folder`, which need not exist, is itself on an overlayfs.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if run(["stat", "--file-system", "--format=%T", existing]).stdout.strip() == "overlayfs":
        raise HostError(
            f"{folder} is on an overlayfs, such as the root of a container, which can't hold layers of another one",
            hint=f"set {variable} to a folder on another file system, such as a volume of the container",
        )


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create a private folder, and lock it against other processes and threads for the duration of the block.

    Raises:
        SwarmerError: this user can't write to the folder.
    """
    try:
        make_private_folder(folder)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SwarmerError(
            f"cannot use folder {folder}: {error.strerror}",
            hint="change its owner, or set SWARMER_HOME to a folder that you own",
        ) from error
    try:
        take_lock(descriptor, f"another process that uses {folder}")
        yield
    finally:
        os.close(descriptor)


def take_lock(
    descriptor: int, holder: str, *, timeout: float = 60, waiting: Callable[[], object] = lambda: None
) -> None:
    """Lock an open file exclusively; waits for whoever holds the lock, as `flock` does, but can be interrupted.

    Args:
        holder: what is waited for, as in "another process that …".
        timeout: seconds until the wait gives up.
        waiting: called if there is something to wait for.

    Raises:
        HostError: it was still locked after `timeout` seconds.
    """
    told = False
    for part in interrupts.parts(timeout):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                waiting()
                told = True
            time.sleep(min(part, _LOCK_INTERVAL))
    raise HostError(f"waited {timeout:.0f} s for {holder}", hint="wait for its end, then try again")


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file atomically, mode 0600: readers see the old or the new content, also after a crash."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # the temporary file may already exist with another mode
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
