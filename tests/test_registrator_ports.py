"""Which ports of the routing mesh docker forwards: those on which it listens, on the sockets of this machine."""

import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from registrator_node import Clock, Node, look, service

from swarmer.node.registrator import mesh
from swarmer.node.registrator.mesh import ClosedPorts, open_ports

FAMILIES = [socket.AF_INET, socket.AF_INET6]


def bound(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    except OSError:
        made.close()
        pytest.skip("this machine has no IPv6")
    return made


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_a_listening_socket_is_an_open_port_until_it_is_closed(family: socket.AddressFamily) -> None:
    with bound(family, socket.SOCK_STREAM) as made:
        key = f"{made.getsockname()[1]}/tcp"
        assert key not in open_ports()
        made.listen()
        assert key in open_ports()
    assert key not in open_ports()


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_a_bound_socket_of_udp_is_an_open_port(family: socket.AddressFamily) -> None:
    with bound(family, socket.SOCK_DGRAM) as made:
        key = f"{made.getsockname()[1]}/udp"
        assert key in open_ports()
    assert key not in open_ports()


def test_the_port_of_a_connection_is_not_open() -> None:
    with bound(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            found = open_ports()
            assert f"{server.getsockname()[1]}/tcp" in found
            assert f"{client.getsockname()[1]}/tcp" not in found


@pytest.mark.parametrize(("kernel", "named"), [("with", False), ("without", True)])
def test_a_port_that_stays_closed_is_logged_once_with_its_reason(
    kernel: str, named: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(mesh, "_IPVS", tmp_path / kernel)
    (tmp_path / "with").touch()
    ports = ClosedPorts()

    def logged() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    with caplog.at_level(logging.ERROR):
        ports.look({"8080/tcp"})
        clock.now += mesh.CLOSED - 1
        ports.look({"8080/tcp"})
        assert logged() == []
        clock.now += 1
        ports.look({"8080/tcp"})
        ports.look({"8080/tcp"})
        (line,) = logged()
        assert "port 8080/tcp of the swarm is not announced" in line
        assert ("IPVS" in line) == named
        ports.look(())
        ports.look({"8080/tcp"})
        clock.now += mesh.CLOSED
        ports.look({"8080/tcp"})
        assert len(logged()) == 1


def test_a_manager_announces_a_port_while_docker_listens_on_it() -> None:
    node = Node()
    made = node.registrator()
    heard: Any = iter([frozenset(), frozenset({"8080/tcp", "22/tcp"}), frozenset()])
    made.swarm.listening = lambda: next(heard)

    def script() -> Any:
        for expected in ((), ("8080/tcp",), ()):
            yield [service("shop")]
            assert made.swarm.swarm.open_ports == frozenset(expected)

    look(made.swarm, script())
