"""How private files are kept: folders 0700, files 0600, whole or not there at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmer.errors import HostError, SwarmerError
from swarmer.shell import run


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, and its missing parents likewise."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


def check_takes_overlays(folder: Path, variable: str) -> None:
    """Refuse a place where overlayfs can't write, such as the root of a container.

    Args:
        variable: that names another place.

    Raises:
        HostError: `folder`, which need not be there, is on such a file system.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if run(["stat", "--file-system", "--format=%T", there]).stdout.strip() == "overlayfs":
        raise HostError(
            f"{folder} is on an overlayfs, as the root of a container is, and overlays can't be stacked on that",
            hint=f"let {variable} name a folder on another file system, such as a volume of the container",
        )


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a private folder and keep other processes, and threads, out of it for a while.

    Raises:
        SwarmerError: this user can't write there.
    """
    try:
        make_private_folder(folder)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SwarmerError(
            f"the folder {folder} can't be used: {error.strerror}",
            hint="make it yours, or let SWARMER_HOME name a folder that is",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file, mode 0600 from its first byte: a reader, or a crash, sees the old or the new."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # for one that a crash, or somebody, left with another mode
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
