"""Which requests pass through the forwarder, and when these are ended."""

import json
import subprocess
import threading
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest

from swarmer.node.consul_agent import Answer
from swarmer.node.registry import access, disk, leadership
from swarmer.node.registry.access import ClientCredentials, Right
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.forwarder import Forwarder
from swarmer.node.registry.leadership import Leadership
from swarmer.node.registry.routing import Request, Route, Router
from swarmer.node.registry.settings import Settings

SETTINGS = Settings(
    "one", {"one": "10.0.0.1", "two": "10.0.0.2"}, "dev.nspawn", "filesystem", "nspawn:dev", "swarmer", "", "secret"
)
BLOB = f"/v2/app/blobs/sha256:{'0' * 64}"
MANIFEST = "/v2/app/manifests/1"
UPLOAD = "/v2/app/blobs/uploads/1"


class Led:
    """A registry that one node leads."""

    def __init__(self, node: str) -> None:
        self.node = node

    def leader(self, **_: float) -> str:
        return self.node


class NoPeers:
    """No peer has anything."""

    def content(self, *_: Any, **__: Any) -> Any:
        raise OSError("silent")


@pytest.fixture(autouse=True)
def empty_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "has_blob", lambda *_: False)
    monkeypatch.setattr(disk, "check_room", lambda _: None)
    monkeypatch.setattr(disk, "touch", lambda _: None)


def route(method: str, uri: str, right: Right, *, leader: str, settings: Settings = SETTINGS) -> Route:
    credentials = ClientCredentials(authorization=f"Bearer {access.token(right, settings, 1e12)}")
    led: Any = None if settings.shared else Led(leader)
    peers: Any = NoPeers()
    return Router(settings, led, peers).route(Request(method, uri, "registry:5000", credentials))


@pytest.mark.parametrize(
    ("method", "uri", "right", "forwarded"),
    [
        ("POST", "/v2/app/blobs/uploads/", Right.PUSH, True),
        ("PATCH", UPLOAD, Right.PUSH, True),
        ("PUT", UPLOAD, Right.PUSH, True),
        ("GET", UPLOAD, Right.PUSH, True),
        ("PUT", MANIFEST, Right.PUSH, True),
        ("DELETE", MANIFEST, Right.PUSH, True),
        ("HEAD", BLOB, Right.PUSH, True),
        ("HEAD", BLOB, Right.PULL, False),
        ("GET", BLOB, Right.PUSH, False),
        ("GET", MANIFEST, Right.PUSH, False),
        ("GET", "/v2/app/tags/list", Right.PUSH, False),
    ],
)
@pytest.mark.parametrize("leader", ["one", "two"])
def test_what_the_leader_has_to_answer_passes_through_the_forwarder_and_nothing_else(
    method: str, uri: str, right: Right, forwarded: bool, leader: str
) -> None:
    found = route(method, uri, right, leader=leader)
    assert found.forwarded is forwarded
    # A manifest passes through it too, once nginx has read all of it.
    whole = (method, uri) == ("PUT", MANIFEST)
    assert found.headers["X-Passing"] == ("@whole" if whole else "@forwarded" if forwarded else "@direct")
    if forwarded:
        assert found.target.startswith("https://10.0.0.2:5000/") is (leader == "two")


KNOWN = {"X-Consul-Knownleader": "true"}


@pytest.mark.parametrize("what", ["blobs", "manifests"])
def test_a_peer_gets_a_blob_from_the_disk_and_a_manifest_with_its_type(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(disk, "has_blob", lambda *_: True)
    organization = SETTINGS.organization
    node = ClientCredentials("SUCCESS", f"CN=two.,O={organization}", f"CN=registry CA,O={organization}")
    digest = f"sha256:{'a' * 64}"
    peers: Any = NoPeers()
    request = Request("GET", f"/peer/v2/app/{what}/{digest}", "registry:5000", node)
    found = Router(SETTINGS, None, peers).route(request)
    assert found.target == f"http://docker-registry/v2/app/{what}/{digest}"
    assert found.digest == (digest if what == "blobs" else "")


def entry(session: str | None) -> Answer:
    """Consul's answer on the lock."""
    value = b64encode(json.dumps({"name": "two"}).encode()).decode()
    held: Mapping[str, str] = {"Session": session} if session else {}
    return Answer(200, KNOWN, json.dumps([{"Value": value, **held}]).encode())


#: There is no entry yet.
FREE = Answer(404, KNOWN, b"")


@pytest.mark.parametrize(
    ("answers", "ended"),
    [
        ([entry("a")], 0),
        ([entry("a"), entry("a")], 0),
        # Once, when the lock is free; not again when it is taken.
        ([entry("a"), entry(None), entry(None), entry("b")], 1),
        ([entry("a"), entry("b")], 1),
        ([entry("a"), FREE], 1),
        ([entry(None), entry("a")], 0),
        ([FREE, entry("a")], 0),
    ],
)
def test_requests_are_ended_once_for_each_session_that_loses_the_lock(
    monkeypatch: pytest.MonkeyPatch, answers: list[Answer], ended: int
) -> None:
    asked = iter(answers)

    class Consul:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def ask(self, *_: Any, **__: Any) -> Answer:
            return next(asked)

    monkeypatch.setattr(leadership, "Agent", Consul)
    monkeypatch.setattr(leadership, "own_token", lambda _: "")
    calls: list[None] = []
    watching = Leadership(SETTINGS, Agents(), lambda: False, lambda: calls.append(None))
    with pytest.raises(StopIteration):
        watching.watch()
    assert len(calls) == ended


def test_the_thread_that_learns_of_the_end_does_not_wait_for_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> None:
        commands.append(command)
        if len(commands) == 2:
            done.set()
            return
        begun.set()
        go_on.wait(10)
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    ending = Forwarder()
    threading.Thread(target=ending.run, daemon=True).start()
    ending.end_requests()
    assert begun.wait(10)
    # While systemd is busy with the first, which fails, the next one is noted.
    ending.end_requests()
    go_on.set()
    assert done.wait(10)
    assert commands == [["systemctl", "reload", "registry-forwarder.service"]] * 2
