"""The clients of the docker engine that run on nodes, against a server on a unix socket."""

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from swarmer.node.docker_engine import EngineError, EngineRefused, NotFound
from swarmer.node.registrator.engine import Engine

#: Gets a request, and writes the answer.
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answer: Answer


class Handler(BaseHTTPRequestHandler):
    def handle_request(self) -> None:
        assert isinstance(self.server, Server)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.answer(self)

    do_GET = do_POST = do_HEAD = handle_request  # noqa: N815

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(str(tmp_path / "docker.sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def engine(server: Server) -> Engine:
    return Engine(f"unix://{server.server_address!s}")


def replies(status: int, body: bytes, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def test_an_answer_is_read_as_json(server: Server, engine: Engine) -> None:
    server.answer = replies(200, b'[{"Id": "x"}]')
    assert engine.containers(ended=False) == [{"Id": "x"}]


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (500, EngineRefused), (503, EngineRefused)])
def test_an_error_carries_the_words_of_docker(server: Server, engine: Engine, status: int, error: type) -> None:
    server.answer = replies(status, json.dumps({"message": "not today"}).encode())
    with pytest.raises(error, match=f"GET /containers/x/json: {status} not today"):
        engine.container("x")


def test_an_answer_that_is_not_json_is_an_error(server: Server, engine: Engine) -> None:
    server.answer = replies(200, b"<html>")
    with pytest.raises(EngineError):
        engine.container("x")


def test_an_engine_that_does_not_answer_is_given_up(server: Server, engine: Engine) -> None:
    server.answer = lambda _: time.sleep(0.5)
    with pytest.raises(EngineError, match="TimeoutError"):
        engine.call("GET", "/info", timeout=0.1)


def test_the_state_in_the_swarm_is_in_the_headers_of_a_ping(server: Server, engine: Engine) -> None:
    server.answer = replies(200, b"", Swarm="active/manager")
    assert engine.swarm_state() == "active/manager"


def test_events_come_as_they_happen_after_the_subscription(server: Server, engine: Engine) -> None:
    proceed = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        assert proceed.wait(5)
        request.wfile.write(b'{"Type": "node"}\n{"Type": "network"}\n')

    server.answer = answer
    events = engine.events("filters=x")
    assert next(events) == {}
    proceed.set()
    assert [event["Type"] for event in events] == ["node", "network"]


def test_an_event_stream_that_breaks_is_an_error(server: Server, engine: Engine) -> None:
    server.answer = replies(200, b'{"Type": "no')
    with pytest.raises(EngineError, match="events"):
        list(engine.events(""))


def frame(text: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4) + text


def test_the_output_of_a_command_is_its_last_bytes_of_both_streams(server: Server, engine: Engine) -> None:
    server.answer = replies(200, frame(b"x" * 5000) + frame(b"out\n") + frame(b"err\n", stream=2))
    assert engine.run_command("x", deadline=time.monotonic() + 5, keep=10) == b"xxout\nerr\n"


def test_output_that_does_not_end_is_given_up_at_the_deadline(server: Server, engine: Engine) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(frame(b"."))
            time.sleep(0.01)

    server.answer = answer
    start = time.monotonic()
    assert set(engine.run_command("x", deadline=start + 0.3, keep=10)) == {ord(".")}
    assert time.monotonic() - start < 2
