"""Nobody but the nodes takes part in what goes on among them: not a stranger on the network, nor a container."""

import json
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from fixtures import anonymous_uploads
from fixtures.containers import DockerRun
from fixtures.registry_load import Pushing
from swarmer import convergence
from swarmer.clients.registry_client import RegistryClient
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import NodeError
from swarmer.pool import Pool
from swarmer.ports import DNS_OF_CONSUL, PORTS, REGISTRY, SSH, VXLAN
from swarmer.seed.packet_filter import ports_among_nodes
from swarmer.services import Services
from swarmer.spec import ConsulRole, SwarmRole
from swarmer.wait import Hopeless, NotYet

two_workers = pytest.mark.needs_workers(2)

#: Where nothing listens in a container: what arrives there is counted.
_NO_PORT = 9


# -- ports among nodes -------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_ports_among_nodes_are_open_to_nodes_alone(nodes: list[Node], docker_run: DockerRun) -> None:
    containers = {node: _process(node, docker_run(node)) for node in nodes}
    for asked in nodes:
        ports = _tcp_ports_among_nodes(asked)
        assert _open_from_here(asked, [*ports, SSH.number]) == [SSH.number], asked
        for asking in {asked, nodes[0], nodes[-1]}:
            assert _open_from(asking, asked, ports) == ports, (asking, asked)
            inside = f"nsenter --net --target {containers[asking]}"
            assert _open_from(asking, asked, [*ports, SSH.number], inside) == [SSH.number], (asking, asked)


def test_the_names_of_the_cluster_are_not_told_on_the_port_among_nodes(cluster: Cluster, nodes: list[Node]) -> None:
    name = f"consul.service.{cluster.spec.domain}"
    for node in nodes:
        assert node.ask(name).records
        assert node.ask(name, port=DNS_OF_CONSUL.number, timeout=1).code == "SILENT"


def test_the_packet_filter_is_in_force_before_what_it_protects(nodes: list[Node]) -> None:
    for node in nodes:
        loaded = _monotonic(node, "swarmer-firewall", "ActiveEnterTimestampMonotonic")
        for unit in ("consul", "docker", "swarmer-dns-consul"):
            assert 0 < loaded < _monotonic(node, unit, "ExecMainStartTimestampMonotonic"), (node, unit)


@pytest.mark.means_failure("swarmer-firewall.service", "docker.socket", "docker.service", "swarmer-acl.service")
def test_a_node_that_can_not_load_its_packet_filter_does_not_come_up(cluster: Cluster, node: Node) -> None:
    definitions = "/etc/swarmer/firewall.nft"
    node.succeed(f"cp {definitions} /root && echo broken >{definitions}")
    try:
        node.reboot()
        cluster.until(
            "the node to be given up", lambda: _check_dead(node, "swarmer-firewall"), timeout=30, retry_on=(NodeError,)
        )
        for unit in ("consul", "docker", "swarmer-dns-consul"):
            assert node.execute(f"systemctl is-active {unit}").stdout.strip() != "active", unit
    finally:
        node.succeed(f"mv /root/firewall.nft {definitions}")
        node.reboot()
    cluster.wait_converged()


def test_a_node_that_joins_later_is_let_in(cluster: Cluster, nodes: list[Node]) -> None:
    newcomer = nodes[-1]
    newcomer.replace()
    cluster.wait_converged()
    for node in nodes:
        assert _open_from(newcomer, node, _tcp_ports_among_nodes(node)) == _tcp_ports_among_nodes(node)
        assert _open_from(node, newcomer, _tcp_ports_among_nodes(newcomer)) == _tcp_ports_among_nodes(newcomer)


# -- networks over all nodes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlay:
    """A network over all nodes, with a container on each of two.

    Attributes:
        vni: by which the nodes know the network on the wire.
        process: of the container on the node that is sent to.
    """

    vni: int
    node: Node
    process: str
    address: IPv4Address
    peer: Node
    peer_container: str

    def frame(self) -> bytes:
        """What is in a packet to port 4789: a UDP packet to the container, from one that isn't there."""
        source = IPv4Address(int(self.address) + 100)
        udp = struct.pack(">HHHH", _NO_PORT, _NO_PORT, 8, 0)
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
        header += source.packed + self.address.packed
        packet = header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + udp
        # Docker makes the hardware address of a container from its address in the network.
        ethernet = b"\x02\x42" + self.address.packed + b"\x02\x42" + source.packed + b"\x08\x00"
        return struct.pack(">II", 0x08000000, self.vni << 8) + ethernet + packet

    def arrived(self) -> int:
        """How many packets have come to a port of the container on which nothing listens."""
        rows = self.node.succeed(f"grep ^Udp: /proc/{self.process}/net/snmp").splitlines()
        names, values = (row.split() for row in rows[:2])
        return int(values[names.index("NoPorts")])

    def arrive(self, send: Callable[[], object]) -> int:
        """How many of the packets that are sent arrive; what the peer sends afterwards does in any case."""
        before = self.arrived()
        for _ in range(5):
            send()
        self.wait_for_peer()
        return self.arrived() - before

    def wait_for_peer(self) -> None:
        """Wait until packets of the container on the other node arrive; nodes learn of each other's by gossip."""
        self.peer.wait_until_succeeds(f"docker exec {self.peer_container} ping -c 1 -W 2 {self.address}")


@pytest.fixture
def overlay(services: Services, swarm_workers: list[Node], docker_run: DockerRun) -> Overlay:
    node, peer = swarm_workers[0], swarm_workers[-1]
    services.make("network", "wall", "--driver=overlay", "--attachable", "wall")
    there, here = docker_run(peer, "--network wall"), docker_run(node, "--network wall")
    inspected = json.loads(node.succeed("docker network inspect wall"))[0]
    address = node.succeed(f"docker inspect --format '{{{{.NetworkSettings.Networks.wall.IPAddress}}}}' {here}").strip()
    vni = int(inspected["Options"]["com.docker.network.driver.overlay.vxlanid_list"])
    made = Overlay(vni, node, _process(node, here), IPv4Address(address), peer, there)
    made.wait_for_peer()
    return made


@two_workers
def test_a_frame_of_a_stranger_does_not_arrive_in_a_network_over_all_nodes(overlay: Overlay) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(overlay.frame(), (str(overlay.node.ip), VXLAN.number))

    assert overlay.arrive(send) == 0
    overlay.node.succeed("systemctl restart docker")
    assert "chain from_nodes" in overlay.node.succeed("nft list table inet swarmer")
    overlay.node.wait_until_succeeds("docker info")


@two_workers
def test_without_the_packet_filter_it_would_arrive_and_a_reload_brings_it_back(overlay: Overlay) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(overlay.frame(), (str(overlay.node.ip), VXLAN.number))

    overlay.node.succeed("nft delete table inet swarmer")
    try:
        assert overlay.arrive(send) == 5
    finally:
        overlay.node.succeed("systemctl reload swarmer-firewall")
    assert overlay.arrive(send) == 0


@two_workers
@pytest.mark.parametrize("network", ["bridge", "host"])
def test_a_frame_of_a_container_does_not_arrive_in_a_network_over_all_nodes(
    overlay: Overlay, nodes: list[Node], docker_run: DockerRun, network: str
) -> None:
    frame = overlay.frame().hex()
    for node in nodes:
        process = _process(node, docker_run(node, f"--network {network}"))
        for address in {str(overlay.node.ip), "172.17.0.1", str(node.ip)}:
            send = f"import socket; socket.socket(2, 2).sendto(bytes.fromhex('{frame}'), ('{address}', {VXLAN.number}))"
            command = f"nsenter --net --target {process} python3 -c {shlex.quote(send)}"
            assert overlay.arrive(lambda command=command, node=node: node.execute(command)) == 0, (node, address)  # type: ignore[misc]


@two_workers
def test_a_container_that_forges_the_address_of_a_node_does_not_get_in(
    overlay: Overlay, nodes: list[Node], docker_run: DockerRun
) -> None:
    """A container may send whatever it likes on its own network, if nobody took NET_RAW from it."""
    forged = next(node for node in nodes if node is not overlay.node)
    process = _process(overlay.node, docker_run(overlay.node))
    udp = struct.pack(">HHHH", VXLAN.number, VXLAN.number, 8 + len(overlay.frame()), 0) + overlay.frame()
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    packet = (header + forged.ip.packed + overlay.node.ip.packed + udp).hex()
    # Protocol 255 is IPPROTO_RAW: the header comes with the packet, and the kernel adds its checksum.
    send = f"import socket; socket.socket(2, 3, 255).sendto(bytes.fromhex('{packet}'), ('{overlay.node.ip}', 0))"
    command = f"nsenter --net --target {process} python3 -c {shlex.quote(send)}"
    assert overlay.arrive(lambda: overlay.node.succeed(command)) == 0


# -- the registry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["host", "container"])
def test_uploads_that_are_not_let_in_cost_nothing(
    nodes: list[Node],
    registry_nodes: list[Node],
    clients: list[RegistryClient],
    docker_run: DockerRun,
    where: str,
) -> None:
    count, program = 40, Path(anonymous_uploads.__file__).read_text()
    asked = registry_nodes[0]
    asking = nodes[-1]
    arguments = f"{asked.ip} {REGISTRY.number} {count} 3"
    process = _process(asking, docker_run(asking)) if where == "container" else ""

    def attack() -> str:
        if where == "container":
            return asking.succeed(f"nsenter --net --target {process} python3 - {arguments}", input=program)
        words = [sys.executable, "-", *arguments.split()]
        return subprocess.run(words, input=program, capture_output=True, text=True, check=True, timeout=120).stdout

    free = _free(asked)
    with Pushing(clients[:1], "beside-strangers") as pushing, Pool(1) as pool:
        pushing.wait_for_more()
        attacking = pool.submit(attack)
        while not attacking.done():
            assert _bodies(asked) == 0
        pushing.wait_for_more()
    answers, sent = attacking.result().splitlines()
    assert [status for status, _ in json.loads(answers)] == [401] * count
    assert max(after for _, after in json.loads(answers)) < nodes[0].scaled(1)
    assert pushing.errors == []
    assert int(sent) > 1_000_000
    assert free - _free(asked) < 64 << 20


@pytest.mark.parametrize(
    "request_line", ["GET /v2/", "GET /health", "POST /token", "GET /nowhere", "PUT /v2/a/manifests/1"]
)
@pytest.mark.parametrize("length", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_whatever_is_asked_by_nobody_is_answered_before_its_body(
    registry_nodes: list[Node], request_line: str, length: str
) -> None:
    with anonymous_uploads.connect(str(registry_nodes[-1].ip), REGISTRY.number) as connection:
        connection.sendall(f"{request_line} HTTP/1.1\r\nHost: registry\r\n{length}\r\n\r\n".encode())
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 4")
    assert _bodies(registry_nodes[-1]) == 0


# -- what the promises are made of -------------------------------------------------------------------------


def _check_dead(node: Node, unit: str) -> None:
    """Look whether the health gate gives a node up because of a unit."""
    try:
        convergence.check_node(node)
    except Hopeless as hopeless:
        if unit in str(hopeless):
            return
        raise NotYet(str(hopeless)) from None
    raise NotYet("it is well")


def _tcp_ports_among_nodes(node: Node) -> list[int]:
    """Those on which this node listens."""
    roles = {"every"}
    roles |= {"server"} if node.server.consul is ConsulRole.SERVER else set()
    roles |= {"manager"} if node.server.swarm is not SwarmRole.AGENT else set()
    among = ports_among_nodes("tcp")
    return sorted(port.number for port in PORTS if port.role in roles and port.number in among)


def _open_from_here(node: Node, ports: list[int]) -> list[int]:
    """The ports of a node to which this host, which is none, can connect."""

    def is_open(port: int) -> bool:
        with suppress(OSError), socket.create_connection((str(node.ip), port), timeout=node.scaled(1)):
            return True
        return False

    with Pool(len(ports)) as pool:
        return sorted(port for port, found in zip(ports, pool.map(is_open, ports), strict=True) if found)


def _open_from(asking: Node, asked: Node, ports: list[int], inside: str = "") -> list[int]:
    """The ports of a node to which another one can connect, or a container on it."""
    tries = (f"({inside} nc -z -w 1 {asked.ip} {port} && echo {port}) &" for port in ports)
    return sorted(map(int, asking.succeed(f"{' '.join(tries)} wait").split()))


def _process(node: Node, container: str) -> str:
    return node.succeed(f"docker inspect --format '{{{{.State.Pid}}}}' {container}").strip()


def _monotonic(node: Node, unit: str, what: str) -> int:
    return int(node.succeed(f"systemctl show --property={what} --value {unit}"))


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return int(~(total + (total >> 16)) & 0xFFFF)


def _free(node: Node) -> int:
    """Bytes that are free where nginx keeps what it can't pass on, and on the disk of the registry."""
    return sum(
        map(int, node.succeed("df --output=avail -B1 /var/lib/nginx /var/lib/docker-registry | tail -n 2").split())
    )


def _bodies(node: Node) -> int:
    """How many files nginx has open in which it keeps bodies of requests, whether they have a name or not."""
    return int(node.succeed("find /proc/[0-9]*/fd -lname '/var/lib/nginx/body/*' 2>/dev/null | wc -l"))
