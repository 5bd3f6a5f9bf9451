"""The client of the other registry nodes, with the certificate of this node."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from swarmer.node.registry import manifests
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.settings import FOLDER, Settings
from swarmer.node.slowness import scaled
from swarmer.ports import REGISTRY

#: Seconds until a peer that doesn't answer is given up.
CONNECT_TIMEOUT: Final = scaled(2.0)
_READ_TIMEOUT: Final = scaled(30.0)

#: The same while a client waits, and another peer can be asked.
QUICK: Final = scaled(3.0)
_COPY_TIMEOUT: Final = 600.0


class Peers:
    """The other registry nodes, by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
        self._context.load_cert_chain(FOLDER / "client.pem", FOLDER / "client-key.pem")

    @contextmanager
    def content(
        self, peer: str, path: str, *, method: str = "GET", timeout: float = _READ_TIMEOUT
    ) -> Iterator[http.client.HTTPResponse]:
        """Content on a peer's own disk: `NAME/blobs/DIGEST` or `NAME/manifests/DIGEST`.

        Args:
            timeout: seconds without a byte until the peer is given up.

        Raises:
            RegistryError: it doesn't have that.
            OSError: it doesn't answer, or with another error.
        """
        with self._asked(peer, method, f"/peer/v2/{path}", None, timeout) as answer:
            if answer.status == 404:
                raise RegistryError(404, "BLOB_UNKNOWN", f"{peer} has no {path}")
            if answer.status != 200:
                raise OSError(f"{peer} answered {answer.status} for {path}")
            yield answer

    def copy(self, peer: str, repository: str, digest: str) -> None:
        """Have a peer fetch a manifest and its blobs from this node; returns when they are on its disk.

        Raises:
            RegistryError: it failed, with the reason.
            OSError: it doesn't answer.
        """
        body = json.dumps({"source": self._settings.name, "repository": repository, "digest": digest}).encode()
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
        self, peer: str, method: str, path: str, body: bytes | None, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(
            self._settings.nodes[peer], REGISTRY.number, timeout=CONNECT_TIMEOUT, context=self._context
        )
        try:
            connection.connect()
            connection.sock.settimeout(timeout)
            _notice_silence(connection.sock)
            connection.request(method, path, body, {"Accept": manifests.ACCEPT})
            yield connection.getresponse()
        except http.client.HTTPException as error:
            raise OSError(f"{peer}: {error!r}") from error
        finally:
            connection.close()


def _notice_silence(connection: socket.socket) -> None:
    """Have the kernel end a connection whose peer is gone, however long an answer may take."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 6000)
