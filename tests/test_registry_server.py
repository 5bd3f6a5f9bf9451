"""What the registry's program takes for a request, on a real socket; what it answers then is stood in for."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from swarmer.image.recipe import RECIPE
from swarmer.node.registry import disk, manifests, server
from swarmer.node.registry.api import Response

HIDDEN = b"DELETE /v2/app/manifests/1 HTTP/1.1\r\nHost: any\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)


class Everything:
    """Allows every request, is healthy, and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def answer(self, method: str, uri: str, _credentials: object, _host: str, _type: str, body: bytes) -> Response:
        self.asked.append((method, uri, len(body)))
        return Response(200)

    def problem(self) -> str:
        return ""


def answers(folder: Path, request: bytes) -> tuple[bytes, list[tuple[str, str, int]]]:
    """All that comes back, until the connection ends; and what was asked of the front."""
    everything: Any = Everything()
    path = str(folder / "front.sock")
    running = server.serve(path, os.getgid(), everything, everything, everything)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(path)
            said = b""
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                said += part
    finally:
        running.shutdown()
        running.server_close()
    return said, everything.asked


@pytest.mark.parametrize("path", ["/health", "/v2/app/manifests/2"])
@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Transfer-Encoding: chunked", CHUNKED),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked", CHUNKED),
        (b"Content-Length: %d" % (manifests.LARGEST + 1), bytes(manifests.LARGEST + 1) + HIDDEN),
        (b"Content-Length: -1", HIDDEN),
        (b"Content-Length: +0", HIDDEN),
    ],
)
def test_what_follows_a_body_of_unknown_size_is_no_request(
    tmp_path: Path, path: str, header: bytes, body: bytes
) -> None:
    said, asked = answers(tmp_path, b"PUT %s HTTP/1.1\r\nHost: any\r\n%s\r\n\r\n%s" % (path.encode(), header, body))
    assert asked == []
    assert said.count(b"HTTP/1.1 ") == 1
    assert said.startswith(b"HTTP/1.1 200" if path == "/health" else b"HTTP/1.1 411")


def test_what_follows_a_whole_body_is_the_next_request(tmp_path: Path) -> None:
    put = b"PUT /v2/app/manifests/2 HTTP/1.1\r\nHost: any\r\nContent-Length: %d\r\n\r\n%s"
    said, asked = answers(tmp_path, put % (manifests.LARGEST, bytes(manifests.LARGEST)) + HIDDEN)
    assert asked == [("PUT", "/v2/app/manifests/2", manifests.LARGEST), ("DELETE", "/v2/app/manifests/1", 0)]
    assert said.count(b"HTTP/1.1 200") == 2


def test_an_error_of_docker_registry_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "nearly_full", lambda: False)
    said, _ = answers(tmp_path, b"GET /failed HTTP/1.1\r\nHost: any\r\nX-Target: http://docker-registry/v2/\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 500")


def test_nginx_knows_every_status_and_header_by_which_the_gate_refuses() -> None:
    """nginx answers by itself, and takes no status from a variable."""
    sources = "".join(file.read_text() for file in Path(server.__file__).parent.glob("*.py"))
    configuration = (RECIPE / "rootfs/etc/nginx/nginx.conf").read_text()
    request = (RECIPE / "rootfs/etc/nginx/registry-request.conf").read_text()
    used = set(re.findall(r"RegistryError\(\s*(\d+)", sources)) | {str(disk.FULL)}
    # Of the front and of peers alone: the size of a manifest, an error of docker-registry, a copy that failed.
    used -= {"411", "413", "500", "502"}
    assert used == set(re.findall(r"= (\d+)\) \{ return \1 \$error_body", configuration))
    for name in ("www_authenticate", "allow", "retry_after"):
        assert f"$upstream_http_x_error_{name};" in request


def test_the_program_knows_every_path_that_nginx_itself_asks_for() -> None:
    configuration = (RECIPE / "rootfs/etc/nginx/nginx.conf").read_text()
    request = (RECIPE / "rootfs/etc/nginx/registry-request.conf").read_text()
    asked = re.findall(r"auth_request (/[a-z]+);", request) + re.findall(r"rewrite \^ (/[a-z]+)\?", configuration)
    assert len(asked) == 3
    known = re.findall(r'case "(/[a-z]+)"', Path(server.__file__).read_text())
    assert {*asked, "/health", "/untagged"} == set(known)
    assert all(f"location = {path} {{" in configuration for path in ("/health", *asked[:1]))
