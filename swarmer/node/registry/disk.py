"""The disk under this node's `docker-registry`: what is on it, how much room is left, what was written through."""

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

#: What stays free on the disk for what is there already: a twentieth of it, at most so many bytes.
_RESERVE_PART: Final = 20
_RESERVE_MOST: Final = 1 << 30

#: The status of an error because the disk is full, and of no other. By 507, which means just that, `docker push` would
#: show no message, and would fill the disk five times more.
FULL: Final = 412

_UPLOAD: Final = re.compile(r"[0-9a-f-]+")

#: Beside our socket: the same for all programs of this node.
_COLLECTION_LOCK: Final = Path(API_SOCKET).with_name("garbage-collection.lock")

_libc = ctypes.CDLL(None, use_errno=True)


def has_blob(repository: str, digest: str) -> bool:
    """Whether the blob is on this disk, and the repository knows it."""
    return size(_link(repository, "_layers", digest)) > 0 and data(digest).exists()


def has(manifest: Manifest) -> bool:
    """Whether a manifest and every blob of it is on this disk. What an index lists is asked for one by one."""
    return (
        size(_link(manifest.repository, "_manifests/revisions", manifest.digest)) > 0
        and size(data(manifest.digest)) == manifest.size
        and all(has_blob(manifest.repository, blob) for blob in manifest.blobs)
    )


def touch(digests: Iterable[str]) -> None:
    """Protect blobs from garbage collection, which leaves what is young: somebody counts on them being there.

    What is there afterwards stays for a while; what isn't has to be sent again.
    """
    with collection_lock(exclusive=False):
        for digest in digests:
            try:
                os.utime(data(digest))
            except FileNotFoundError:
                continue


@contextmanager
def collection_lock(*, exclusive: bool) -> Iterator[None]:
    """Between a look at the age of something and its removal, nobody may begin to count on it."""
    with _COLLECTION_LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def flush_to_disk() -> None:
    """Return when everything written is on the disk, names of files too."""
    descriptor = os.open(STORAGE_ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(STORAGE_ROOT))
    finally:
        os.close(descriptor)


def check_room(length: int) -> None:
    """Look whether so many more bytes fit, beside what must stay free.

    Raises:
        RegistryError: they don't.
    """
    usage = shutil.disk_usage(STORAGE_ROOT)
    reserve = min(usage.total // _RESERVE_PART, _RESERVE_MOST)
    if usage.free < length + reserve:
        raise full(f"{usage.free // 2**20} MiB are free, {reserve // 2**20} MiB of them are kept")


def nearly_full() -> bool:
    """Whether the disk is about full: the likely reason of an error."""
    usage = shutil.disk_usage(STORAGE_ROOT)
    return usage.free < min(usage.total // _RESERVE_PART, _RESERVE_MOST)


def drop_upload(repository: str, upload: str) -> None:
    """Remove what came of an upload so far."""
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
    """Where that is, among all contents."""
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}/{value[:2]}/{value}/data"


def size(path: Path) -> int:
    """In bytes; 0 where there is no file, or what a power cut left of one."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _link(repository: str, kind: str, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    return _TREE / "repositories" / repository / kind / algorithm / value / "link"
