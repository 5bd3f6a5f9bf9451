"""Storing what comes from another node, which may stop sending at any moment."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from swarmer.node.registry import docker_registry


class _Patient(BaseHTTPRequestHandler):
    """Waits for the whole content, however long that takes, as `docker-registry` does."""

    def do_POST(self) -> None:
        self._answer(202, {"Location": "/upload"})

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        if len(self.rfile.read(length)) == length:
            self._answer(201, {})

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    socket = str(tmp_path / "socket")
    monkeypatch.setattr(docker_registry, "DOCKER_REGISTRY_SOCKET", socket)
    with ThreadingUnixStreamServer(socket, _Patient) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("length", [0, 1, 3_000_000])
def test_a_content_is_sent_whole(length: int) -> None:
    docker_registry.put_blob("library/one", "sha256:0", io.BytesIO(bytes(length)), length)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("missing", [1, 2_999_999, 3_000_000])
def test_a_content_that_ends_too_early_is_an_error_without_a_wait_for_the_rest(missing: int) -> None:
    with pytest.raises(OSError, match=f"{missing} bytes too early"):
        docker_registry.put_blob("library/one", "sha256:0", io.BytesIO(bytes(3_000_000 - missing)), 3_000_000)
