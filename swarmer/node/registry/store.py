"""This node's own `docker-registry`, and the disk under it."""

import ctypes
import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.settings import FRONT_SOCKET, STORE_ROOT, STORE_SOCKET

if TYPE_CHECKING:
    from _typeshed import SupportsRead

_TIMEOUT: Final = 60.0
_TREE: Final = STORE_ROOT / "docker/registry/v2"

#: What stays free on the disk for what is there already: a twentieth of it, at most so many bytes.
_RESERVE_PART: Final = 20
_RESERVE_MOST: Final = 1 << 30

_UPLOAD: Final = re.compile(r"[0-9a-f-]+")

#: Beside our socket: the same for all programs of this node.
_SWEEP_LOCK: Final = Path(FRONT_SOCKET).with_name("sweep.lock")

#: Nobody may take for damaged what is just being written.
_one_manifest = threading.Lock()

_libc = ctypes.CDLL(None, use_errno=True)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(STORE_SOCKET)


@dataclass(frozen=True)
class Reply:
    """What `docker-registry` answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def refusal(self) -> RegistryError:
        """Its error, with the code of the spec."""
        try:
            error: dict[str, Any] = json.loads(self.body)["errors"][0]
            detail = f": {json.dumps(error['detail'])}" if error.get("detail") else ""
            return RegistryError(self.status, str(error["code"]), f"{error['message']}{detail}")
        except (ValueError, KeyError, IndexError, TypeError):
            return RegistryError(502, "UNKNOWN", f"the node's docker-registry answered {self.status}")


class _Whole:
    """A content of known length, which is an error when it ends before: `docker-registry` would wait for the rest."""

    def __init__(self, content: "SupportsRead[bytes]", length: int) -> None:
        self._content = content
        self._left = length

    def read(self, size: int) -> bytes:
        part = self._content.read(size)
        self._left -= len(part)
        if not part and self._left > 0:
            raise OSError(f"it ended {self._left} bytes too early")
        return part


def ask(method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Ask this node's `docker-registry`.

    Args:
        body: bytes, or a file that is sent as it is read; its length stands in `headers`.

    Raises:
        OSError: it doesn't answer.
    """
    connection = _Connection("localhost", timeout=_TIMEOUT, blocksize=1 << 20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.headers), answer.read())
    except http.client.HTTPException as error:
        raise OSError(f"docker-registry: {error!r}") from error
    finally:
        connection.close()


def answers() -> str:
    """Empty when it can serve; else why not, in its own words."""
    try:
        reply = ask("GET", "/v2/")
    except OSError as error:
        return f"docker-registry doesn't answer: {error}"
    return "" if reply.status == 200 else f"docker-registry can't use its disk: {reply.status}"


def put_manifest(repository: str, digest: str, type_: str, content: bytes) -> None:
    """Store a manifest under its digest; `docker-registry` looks whether all that it refers to is there.

    Raises:
        RegistryError: it isn't, or the manifest is wrong.
        OSError: no answer.
    """
    with _one_manifest:
        if _size(data(digest)) != len(content):
            # `docker-registry` writes manifests in place, and takes for whole what a power cut left of one.
            data(digest).unlink(missing_ok=True)
        reply = ask("PUT", f"/v2/{repository}/manifests/{digest}", content, {"Content-Type": type_})
    if reply.status != 201:
        raise reply.refusal()


def put_blob(repository: str, digest: str, content: "SupportsRead[bytes]", length: int) -> None:
    """Store a blob under its digest, which `docker-registry` checks.

    Raises:
        RegistryError: it doesn't fit, or there is no room.
        OSError: no answer, or `content` ended too early.
    """
    begun = ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
    if begun.status != 202:
        raise begun.refusal()
    where = begun.headers["Location"]
    where += ("&" if "?" in where else "?") + f"digest={quote(digest)}"
    reply = ask(
        "PUT",
        where,
        _Whole(content, length),
        {"Content-Length": str(length), "Content-Type": "application/octet-stream"},
    )
    if reply.status != 201:
        raise reply.refusal()


def has_blob(repository: str, digest: str) -> bool:
    """Whether the blob is on this disk, and the repository knows it."""
    return _size(_link(repository, "_layers", digest)) > 0 and data(digest).exists()


def has(manifest: Manifest) -> bool:
    """Whether a manifest and every blob of it is on this disk. What an index lists is asked for one by one."""
    return (
        _size(_link(manifest.repository, "_manifests/revisions", manifest.digest)) > 0
        and _size(data(manifest.digest)) == manifest.size
        and all(has_blob(manifest.repository, blob) for blob in manifest.blobs)
    )


def touch(digests: Iterable[str]) -> None:
    """Protect blobs from garbage collection, which leaves what is young: somebody counts on them being there.

    What is there afterwards stays for a while; what isn't has to be sent again.
    """
    with lock_for_sweep(exclusive=False):
        for digest in digests:
            try:
                os.utime(data(digest))
            except FileNotFoundError:
                continue


@contextmanager
def lock_for_sweep(*, exclusive: bool) -> Iterator[None]:
    """Between a look at the age of something and its removal, nobody may begin to count on it."""
    with _SWEEP_LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def settle() -> None:
    """Return when everything written is on the disk, names of files too."""
    descriptor = os.open(STORE_ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(STORE_ROOT))
    finally:
        os.close(descriptor)


def check_room(length: int) -> None:
    """Look whether so many more bytes fit, beside what must stay free.

    Raises:
        RegistryError: they don't.
    """
    usage = shutil.disk_usage(STORE_ROOT)
    reserve = min(usage.total // _RESERVE_PART, _RESERVE_MOST)
    if usage.free < length + reserve:
        raise full(f"{usage.free // 2**20} MiB are free, {reserve // 2**20} MiB of them are kept")


def low() -> bool:
    """Whether the disk is about full: the likely reason of an error."""
    usage = shutil.disk_usage(STORE_ROOT)
    return usage.free < min(usage.total // _RESERVE_PART, _RESERVE_MOST)


def drop_upload(repository: str, upload: str) -> None:
    """Remove what came of an upload so far."""
    if _UPLOAD.fullmatch(upload):
        shutil.rmtree(_TREE / "repositories" / repository / "_uploads" / upload, ignore_errors=True)


def full(detail: str) -> RegistryError:
    """What a client is told when there is no room.

    By 507, which says just that, `docker push` would show no message, and would fill the disk five times more.
    """
    message = f"the disk of the registry is full: {detail}; `swarmer registry gc` may free some"
    return RegistryError(412, "DENIED", message)


def data(digest: str) -> Path:
    """The file with the content of a blob or a manifest."""
    return _TREE / "blobs" / place(digest)


def place(digest: str) -> str:
    """Where that is, among all contents."""
    algorithm, _, value = digest.partition(":")
    return f"{algorithm}/{value[:2]}/{value}/data"


def _size(path: Path) -> int:
    """In bytes; 0 where there is no file, or what a power cut left of one."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _link(repository: str, kind: str, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    return _TREE / "repositories" / repository / kind / algorithm / value / "link"
