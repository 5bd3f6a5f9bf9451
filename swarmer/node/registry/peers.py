"""The client of the other registry nodes, with the certificate of this node."""

import http.client
import json
import queue
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from swarmer.node.registry import manifests
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.settings import FOLDER, Settings
from swarmer.node.slowness import scaled
from swarmer.ports import REGISTRY

#: Seconds until a peer that doesn't answer is given up.
CONNECT_TIMEOUT: Final = scaled(2.0)
_READ_TIMEOUT: Final = scaled(30.0)

#: The same while a client waits, and another peer can be asked.
QUICK: Final = scaled(3.0)
_COPY_TIMEOUT: Final = 600.0

#: Connections to each peer that are kept while many contents are fetched, and seconds without use after which they
#: aren't used again: a peer may have lost power since, which takes longer to notice than on a new connection.
_IDLE: Final = 8
_FRESH: Final = 3.0


class Peers:
    """The other registry nodes, by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
        self._context.load_cert_chain(FOLDER / "client.pem", FOLDER / "client-key.pem")
        self._idle: dict[str, queue.LifoQueue[tuple[float, http.client.HTTPSConnection]]] = {
            peer: queue.LifoQueue(_IDLE) for peer in settings.peers
        }

    @contextmanager
    def content(
        self, peer: str, path: str, *, method: str = "GET", timeout: float = _READ_TIMEOUT, many: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        """Content on a peer's own disk: `NAME/blobs/DIGEST` or `NAME/manifests/DIGEST`.

        Args:
            timeout: seconds without a byte until the peer is given up.
            many: it is one of many contents, which share connections: a new one takes more time than a small content.

        Raises:
            RegistryError: it doesn't have that.
            OSError: it doesn't answer, or with another error.
        """
        with self._asked(peer, method, f"/peer/v2/{path}", None, timeout, many=many) as answer:
            if answer.status == 404:
                raise RegistryError(404, "BLOB_UNKNOWN", f"{peer} has no {path}")
            if answer.status != 200:
                raise OSError(f"{peer} answered {answer.status} for {path}")
            yield answer

    def copy(self, peer: str, manifest: Manifest) -> None:
        """Have a peer fetch a manifest and its blobs from this node; returns when they are on its disk.

        Raises:
            RegistryError: it failed, with the reason.
            OSError: it doesn't answer.
        """
        wanted = {"repository": manifest.repository, "digest": manifest.digest, "uploaded": manifest.uploaded}
        body = json.dumps({"source": self._settings.name, **wanted}).encode()
        with self._asked(peer, "POST", "/peer/copy", body, _COPY_TIMEOUT) as answer:
            content = answer.read()
        if answer.status != 200:
            try:
                error = json.loads(content)["errors"][0]
                raise RegistryError(answer.status, error["code"], error["message"])
            except (ValueError, LookupError, TypeError):
                raise OSError(f"{peer} answered {answer.status}") from None

    @contextmanager
    def _asked(
        self, peer: str, method: str, path: str, body: bytes | None, timeout: float, *, many: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        kept = self._kept(peer) if many else None
        connection = kept or self._connected(peer)
        keep = False
        try:
            try:
                answer = _answer(connection, method, path, body, timeout)
            except ConnectionError:
                if not kept:
                    raise
                # The peer had closed it.
                connection.close()
                connection = self._connected(peer)
                answer = _answer(connection, method, path, body, timeout)
            yield answer
            # Read to its end, and the peer keeps the connection.
            keep = many and answer.isclosed() and connection.sock is not None
        except http.client.HTTPException as error:
            raise OSError(f"{peer}: {error!r}") from error
        finally:
            if keep:
                self._keep(peer, connection)
            else:
                connection.close()

    def _connected(self, peer: str) -> http.client.HTTPSConnection:
        address = self._settings.nodes[peer]
        connection = http.client.HTTPSConnection(
            address, REGISTRY.number, timeout=CONNECT_TIMEOUT, context=self._context
        )
        try:
            connection.connect()
            _notice_silence(connection.sock)
        except BaseException:
            connection.close()
            raise
        return connection

    def _kept(self, peer: str) -> http.client.HTTPSConnection | None:
        while True:
            try:
                since, connection = self._idle[peer].get_nowait()
            except queue.Empty:
                return None
            if time.monotonic() - since < _FRESH:
                return connection
            connection.close()

    def _keep(self, peer: str, connection: http.client.HTTPSConnection) -> None:
        try:
            self._idle[peer].put_nowait((time.monotonic(), connection))
        except queue.Full:
            connection.close()


def _answer(
    connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None, timeout: float
) -> http.client.HTTPResponse:
    connection.sock.settimeout(timeout)
    connection.request(method, path, body, {"Accept": manifests.ACCEPT})
    return connection.getresponse()


def _notice_silence(connection: socket.socket) -> None:
    """Have the kernel end a connection whose peer is gone, however long an answer may take."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 6000)
