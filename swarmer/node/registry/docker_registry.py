"""The client of this node's own `docker-registry`."""

import http.client
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from swarmer.node.registry import disk
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.settings import DOCKER_REGISTRY_SOCKET
from swarmer.node.unix_http import UnixHTTPConnection

if TYPE_CHECKING:
    from _typeshed import SupportsRead

#: Seconds without a byte until it counts as not answering.
_TIMEOUT: Final = 60.0

#: A manifest that is just being written must not be taken for a damaged one.
_one_manifest = threading.Lock()


@dataclass(frozen=True)
class Reply:
    """What `docker-registry` answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def error(self) -> RegistryError:
        """Its error, with the code of the spec."""
        try:
            error: dict[str, Any] = json.loads(self.body)["errors"][0]
            detail = f": {json.dumps(error['detail'])}" if error.get("detail") else ""
            return RegistryError(self.status, str(error["code"]), f"{error['message']}{detail}")
        except (ValueError, KeyError, IndexError, TypeError):
            return RegistryError(502, "UNKNOWN", f"the node's docker-registry answered {self.status}")


class _Whole:
    """Content of known length. It is an error if it ends earlier, since `docker-registry` would wait for the rest."""

    def __init__(self, content: "SupportsRead[bytes]", length: int) -> None:
        self._content = content
        self._left = length

    def read(self, size: int) -> bytes:
        part = self._content.read(size)
        self._left -= len(part)
        if not part and self._left > 0:
            raise OSError(f"the content ended {self._left} bytes too early")
        return part


def ask(method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Ask this node's `docker-registry`.

    Args:
        body: bytes, or a file that is sent as it is read; its length is in `headers`.

    Raises:
        OSError: it doesn't answer.
    """
    connection = UnixHTTPConnection(DOCKER_REGISTRY_SOCKET, timeout=_TIMEOUT, blocksize=1 << 20)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.headers), answer.read())
    except http.client.HTTPException as error:
        raise OSError(f"docker-registry: {error!r}") from error
    finally:
        connection.close()


def problem() -> str:
    """Why it can't serve, in its own words; empty when it can."""
    try:
        reply = ask("GET", "/v2/")
    except OSError as error:
        return f"docker-registry doesn't answer: {error}"
    return "" if reply.status == 200 else f"docker-registry can't use its disk: {reply.status}"


def put_manifest(repository: str, digest: str, type_: str, content: bytes) -> None:
    """Store a manifest under its digest; `docker-registry` checks that all blobs that it refers to exist.

    Raises:
        RegistryError: they don't, or the manifest is invalid.
        OSError: no answer.
    """
    with _one_manifest:
        if not disk.holds(digest, content):
            # `docker-registry` writes manifests in place, and accepts what a power cut left of one.
            disk.data(digest).unlink(missing_ok=True)
        reply = ask("PUT", f"/v2/{repository}/manifests/{digest}", content, {"Content-Type": type_})
    if reply.status != 201:
        raise reply.error()


def put_blob(repository: str, digest: str, content: "SupportsRead[bytes]", length: int) -> None:
    """Store a blob under its digest, which `docker-registry` checks.

    Raises:
        RegistryError: it doesn't have this digest, or there is no room.
        OSError: no answer, or `content` ended too early.
    """
    begun = ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
    if begun.status != 202:
        raise begun.error()
    where = begun.headers["Location"]
    where += ("&" if "?" in where else "?") + f"digest={quote(digest)}"
    reply = ask(
        "PUT",
        where,
        _Whole(content, length),
        {"Content-Length": str(length), "Content-Type": "application/octet-stream"},
    )
    if reply.status != 201:
        raise reply.error()
