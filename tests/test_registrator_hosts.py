"""The address of this host, and an engine that isn't there."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from swarmer.node.docker_engine import Engine, EngineError
from swarmer.node.registrator.hosts import host_address, is_local, lookup
from swarmer.node.registrator.inventory import Inventory, summary


@pytest.fixture
def own_address() -> str:
    """An address that this machine has, and that isn't of the loopback."""
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    if not shown:
        pytest.skip("needs a network")
    return shown[0]


def test_an_address_of_this_machine_is_local(own_address: str) -> None:
    assert is_local(own_address)
    for other in ("127.0.0.1", "::1", "0.0.0.0", "192.0.2.1", "2001:db8::1", "host", ""):
        assert not is_local(other)


def test_the_agents_address_is_announced_where_it_is_ours(own_address: str) -> None:
    assert host_address(own_address, "nowhere.invalid") == own_address


def test_with_the_agent_on_another_machine_the_hosts_name_is_looked_up(
    own_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver: Any = lambda *_, **__: [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (own_address, 0))]  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    assert host_address("192.0.2.1", "this-host") == own_address


def test_without_an_address_of_this_machine_the_agents_address_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    assert lookup("nowhere.invalid") == []
    assert host_address("192.0.2.1", "nowhere.invalid") == "192.0.2.1"
    assert "pass one with -ip" in caplog.text


def test_an_engine_that_is_not_there_is_away(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        Engine(f"unix://{tmp_path}/docker.sock").call("GET", "/info")


def test_a_process_that_ended_takes_its_container_along() -> None:
    inventory = Inventory("unix:///nowhere", with_ended=False)
    process = subprocess.Popen(["sleep", "60"])
    inventory.containers = {
        "ours": {"State": {"Pid": process.pid}, "seen": True},
        "remote": {"State": {"Pid": 4194304}, "seen": False},
    }
    assert inventory.processes() == {"ours": process.pid}
    assert not inventory.drop_dead()
    process.kill()
    # Also before anybody has asked for its exit status.
    while inventory.containers.keys() == {"ours", "remote"}:
        inventory.drop_dead({"ours"})
    assert inventory.containers.keys() == {"remote"}
    process.wait()


def test_a_listed_container_is_looked_at_again_when_something_of_it_changed() -> None:
    item: dict[str, Any] = {
        "State": "running",
        "Status": "Up 5 minutes (healthy)",
        "Names": ["/web"],
        "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0"}],
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    }
    assert summary(item) == summary({**item, "Status": "Up 6 minutes (healthy)"})
    changes: list[dict[str, Any]] = [
        {"State": "exited"},
        {"Status": "Up 6 minutes (unhealthy)"},
        {"Names": ["/shop"]},
        {"Ports": []},
        {"NetworkSettings": {"Networks": {}}},
    ]
    for change in changes:
        assert summary(item) != summary({**item, **change})
