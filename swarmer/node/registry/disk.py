"""The disk under this node's `docker-registry`: what it holds, how much room is left, and writing it through."""

import ctypes
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.settings import API_SOCKET, STORAGE_ROOT

_TREE: Final = STORAGE_ROOT / "docker/registry/v2"

#: The part of the disk that stays free, and the most bytes that it is.
_RESERVE_PART: Final = 20
_RESERVE_MOST: Final = 1 << 30

#: The status of an error because the disk is full, and of no other. By 507, which means just that, `docker push` would
#: show no message, and would fill the disk five times more.
FULL: Final = 412

_UPLOAD: Final = re.compile(r"[0-9a-f-]+")

#: Beside our socket, so that all programs of this node use the same file.
_COLLECTION_LOCK: Final = Path(API_SOCKET).with_name("garbage-collection.lock")

_libc = ctypes.CDLL(None, use_errno=True)


def has_blob(repository: str, digest: str) -> bool:
    """Whether the blob is on this disk, and the repository knows it."""
    return size(_link(repository, "_layers", digest)) > 0 and data(digest).exists()


def has(manifest: Manifest, blobs: Iterable[str]) -> bool:
    """Whether a manifest and these blobs of it are on this disk. What an index lists is not looked for."""
    return (
        size(_link(manifest.repository, "_manifests/revisions", manifest.digest)) > 0
        and size(data(manifest.digest)) == manifest.size
        and all(has_blob(manifest.repository, blob) for blob in blobs)
    )


def holds(digest: str, content: bytes) -> bool:
    """Whether this disk has exactly this content under a digest."""
    file = data(digest)
    return size(file) == len(content) and file.read_bytes() == content


def touch(digests: Iterable[str]) -> None:
    """Protect blobs that a push counts on from garbage collection, which keeps what was touched lately.

    A blob that exists afterwards is kept for the grace period; any other has to be sent again.
    """
    with collection_lock(exclusive=False):
        for digest in digests:
            try:
                os.utime(data(digest))
            except FileNotFoundError:
                continue


@contextmanager
def collection_lock(*, exclusive: bool) -> Iterator[None]:
    """Held exclusively between a look at the age of a file and its removal, so that no push begins to count on it."""
    with _COLLECTION_LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def flush_to_disk() -> None:
    """Return when everything written is on the disk, the names of files too.

    By `syncfs`: the files were written by another program, and fsync would need each file and folder.

    Raises:
        OSError: the disk reports an error.
    """
    descriptor = os.open(STORAGE_ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(STORAGE_ROOT))
    finally:
        os.close(descriptor)


def check_room(length: int) -> None:
    """Check that so many bytes fit beside the reserve.

    Raises:
        RegistryError: they don't.
    """
    usage = shutil.disk_usage(STORAGE_ROOT)
    reserve = min(usage.total // _RESERVE_PART, _RESERVE_MOST)
    if usage.free < length + reserve:
        raise full(f"{usage.free // 2**20} MiB are free, {reserve // 2**20} MiB of them are kept")


def nearly_full() -> bool:
    """Whether less than the reserve is free, which then is the likely reason of an error."""
    usage = shutil.disk_usage(STORAGE_ROOT)
    return usage.free < min(usage.total // _RESERVE_PART, _RESERVE_MOST)


def uploaded(repository: str, upload: str) -> int | None:
    """The bytes of an upload that arrived; None if there is no such upload."""
    folder = _TREE / "repositories" / repository / "_uploads" / upload
    return size(folder / "data") if _UPLOAD.fullmatch(upload) and folder.exists() else None


def drop_upload(repository: str, upload: str) -> None:
    """Remove the part of an upload that arrived."""
    if _UPLOAD.fullmatch(upload):
        shutil.rmtree(_TREE / "repositories" / repository / "_uploads" / upload, ignore_errors=True)


def full(detail: str) -> RegistryError:
    """The error when there is no room."""
    message = f"the disk of the registry is full: {detail}; `swarmer registry gc` may free some"
    return RegistryError(FULL, "DENIED", message)


def data(digest: str) -> Path:
    """The file with the content of a blob or a manifest."""
    return _TREE / "blobs" / relative_path(digest)


def relative_path(digest: str) -> str:
    """The path of that file below the folder of all contents."""
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}/{value[:2]}/{value}/data"


def size(path: Path) -> int:
    """The size of a file in bytes; 0 if it doesn't exist, or a power cut left it empty."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _link(repository: str, kind: str, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    return _TREE / "repositories" / repository / kind / algorithm / value / "link"
