"""The server on a unix socket, which nginx asks."""

import json
import logging
import os
import socketserver
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from swarmer.node.registry import disk, manifests
from swarmer.node.registry.access import ClientCredentials
from swarmer.node.registry.api import Api, Response
from swarmer.node.registry.api_call import Kind, parse
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.health import Health
from swarmer.node.registry.routing import Request, Router

logger = logging.getLogger(__name__)


class Server(socketserver.ThreadingUnixStreamServer):
    """One thread per connection that nginx keeps open."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """nginx didn't wait for the answer: its client has gone, or it timed out."""
        if isinstance(sys.exc_info()[1], ConnectionError):
            logger.debug("nginx hung up")
        else:
            super().handle_error(request, client_address)


def serve(socket: str, group: int, router: Router, api: Api, health: Health) -> Server:
    """Start to answer on a socket that only root and `group` may use."""
    handler = type("Handler", (_Handler,), {"router": router, "api": api, "health": health})
    server = Server(socket, handler)
    os.chown(socket, 0, group)
    os.chmod(socket, 0o660)  # noqa: PTH101
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    router: ClassVar[Router]
    api: ClassVar[Api]
    health: ClassVar[Health]

    def _answer(self) -> None:
        body = self._body()
        try:
            response = self._response(body)
        except RegistryError as error:
            response = _error_response(error)
        except OSError as error:
            logger.warning("%s %s: %s", self.command, self.path, error)
            down = unavailable(f"a part of the registry is down: {error}")
            response = _error_response(disk.full(str(error)) if disk.nearly_full() else down)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        if body is None:
            self._discard_the_rest()

    def _discard_the_rest(self) -> None:
        """Read until nginx hangs up: the kernel drops the answer when a socket is closed with something unread."""
        self.connection.settimeout(10)
        with suppress(OSError):
            while self.rfile.read1(1 << 16):
                pass

    def _body(self) -> bytes | None:
        """The whole body; None if it is too large or of unknown size.

        Then the connection has to be closed: the unread rest would be taken for the next request, which was never
        checked.
        """
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > manifests.LARGEST:
            self.close_connection = True
            return None
        return self.rfile.read(int(length))

    def _response(self, body: bytes | None) -> Response:
        headers = self.headers
        match self.path:
            case "/route":
                return self._route()
            case "/health":
                problem = self.health.problem()
                text = {"Content-Type": "text/plain; charset=utf-8"}
                return Response(503 if problem else 200, f"{problem or 'the registry is healthy'}\n".encode(), text)
            case "/failed":
                self._make_room()
                raise RegistryError(500, "UNKNOWN", "docker-registry failed on this node; see its journal")
            case "/gone":
                self._make_room()
                raise unavailable("a part of the registry is down; try again")
            case "/untagged":
                return self._remove_untagged(body)
            case _ if body is None:
                limit = f"{manifests.LARGEST >> 20} MiB at most"
                raise RegistryError(411, "SIZE_INVALID", f"send the manifest with its size in Content-Length: {limit}")
            case _:
                type_ = headers.get("Content-Type", "")
                return self.api.answer(self.command, self.path, self._credentials(), headers["Host"], type_, body)

    def _remove_untagged(self, body: bytes | None) -> Response:
        """For the garbage collection on this node: clients can't ask for this path."""
        removed = self.api.remove_untagged(json.loads(body or b"")["before"])
        return Response(200, json.dumps({"manifests": removed}).encode())

    def _make_room(self) -> None:
        """After an error: if the disk is full, remove the upload that failed, so that it doesn't stay full.

        Raises:
            RegistryError: the disk is full.
        """
        if not disk.nearly_full():
            return
        call = parse(self.headers["X-Method"], self.headers["X-Uri"])
        if call.kind is Kind.UPLOAD:
            disk.drop_upload(call.repository, call.reference)
        raise disk.full("the upload did not fit")

    def _route(self) -> Response:
        """For nginx: 204 and the route of a request, or 403 and the error for the client, both as headers."""
        headers = self.headers
        length = headers.get("X-Length", "")
        request = Request(
            headers["X-Method"],
            headers["X-Uri"],
            headers["Host"],
            self._credentials(),
            length=int(length) if length.isdigit() else 0,
            content_range=headers.get("X-Content-Range", ""),
            forwarded=bool(headers.get("X-Forwarded-By-Node")),
        )
        try:
            return Response(204, b"", self.router.route(request).headers)
        except RegistryError as error:
            return Response(403, b"", error.for_nginx)
        except OSError as error:
            return Response(403, b"", unavailable(str(error)).for_nginx)

    def _credentials(self) -> ClientCredentials:
        headers = self.headers
        return ClientCredentials(
            headers.get("X-Client-Verify", ""),
            headers.get("X-Client-Subject", ""),
            headers.get("X-Client-Issuer", ""),
            headers.get("Authorization", ""),
        )

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815

    def address_string(self) -> str:
        return "nginx"

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _error_response(error: RegistryError) -> Response:
    return Response(error.status, error.body, {"Content-Type": "application/json", **error.headers})
