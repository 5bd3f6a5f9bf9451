"""A docker engine obeys its own node, and whoever has a client certificate of the docker plane; nobody else."""

import socket
from pathlib import Path

import pytest

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.ports import DOCKER
from swarmer.secrets.client_files import Plane


@pytest.fixture
def asks(cluster: Cluster, tmp_path: Path) -> "Asks":
    """Asks the engine of a node, as whoever has some certificate."""
    return Asks(cluster, tmp_path)


class Asks:
    """Asks engines from a node, with curl: what counts is what the engine itself takes."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.trust = folder / "trust.pem"

    def __call__(self, asking: Node, asked: Node, certificate: str) -> tuple[int, str]:
        """Exit status and output of curl; `certificate` are its options."""
        trust = "/run/docker-trust.pem"
        asking.succeed(f"cat > {trust}", input=self.cluster.authority.bundle(Plane.DOCKER).decode())
        url = f"https://{asked.name}.node.{self.cluster.spec.domain}:{DOCKER.number}/info"
        answer = asking.execute(f"curl -sS --max-time 5 --cacert {trust} {certificate} {url}")
        return answer.status, answer.stdout + answer.stderr


@pytest.mark.smoke
def test_a_client_of_the_docker_plane_is_served_under_the_names_of_the_node(
    cluster: Cluster, nodes: list[Node], asks: Asks
) -> None:
    asking = nodes[0]
    files = cluster.home.client(Plane.DOCKER)
    asking.succeed("install -d -m 0700 /run/as")
    for file in (files.certificate, files.key):
        asking.succeed(f"umask 077 && cat > /run/as/{file.name}", input=file.read_text())
    try:
        for node in nodes:
            status, output = asks(asking, node, "--cert /run/as/cert.pem --key /run/as/key.pem")
            assert (status, f'"Name":"{node.name}"' in output) == (0, True), output
    finally:
        asking.succeed("rm -r /run/as")


@pytest.mark.parametrize(
    "certificate",
    [
        "",
        "--cert /etc/swarmer/docker/node.pem --key /etc/swarmer/docker/node-key.pem",
        "--cert /etc/swarmer/consul/node.pem --key /etc/swarmer/consul/node-key.pem",
    ],
    ids=["nothing", "docker", "consul"],
)
def test_with_what_a_node_has_it_is_no_administrator_of_its_peers(
    nodes: list[Node], asks: Asks, certificate: str
) -> None:
    for asking, asked in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        status, output = asks(asking, asked, certificate)
        assert status, f"{asked.name} answered {asking.name}: {output}"
        assert "alert" in output, output


def test_the_other_planes_clients_are_no_docker_clients(cluster: Cluster, nodes: list[Node], asks: Asks) -> None:
    asking = nodes[0]
    name = f"stranger.{cluster.spec.domain}"
    for plane in (Plane.CONSUL, Plane.REGISTRY):
        stranger = cluster.authority.issue(plane, "stranger", dns=[name], ip=[], server=False, client=True)
        pem = (stranger.certificate + stranger.key).decode()
        asking.succeed("umask 077 && cat > /run/stranger.pem", input=pem)
        try:
            status, output = asks(asking, nodes[-1], "--cert /run/stranger.pem")
        finally:
            asking.succeed("rm /run/stranger.pem")
        assert status, f"{nodes[-1].name} answered a client of {plane}: {output}"
        assert "alert" in output, output


def test_plain_http_is_neither_spoken_nor_listened_for(nodes: list[Node]) -> None:
    for node in nodes:
        answer = node.execute(f"curl -s http://{node.ip}:{DOCKER.number}/info")
        assert "HTTP request to an HTTPS server" in answer.stdout, node
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((str(node.ip), 2375), timeout=5)


def test_only_root_and_the_docker_group_reach_the_unix_socket(nodes: list[Node]) -> None:
    for node in nodes:
        assert node.succeed("stat -c '%A %U:%G' /run/docker.sock").strip() == "srw-rw---- root:docker", node
        assert node.succeed("getent group docker").strip().endswith(":"), node
        assert node.succeed("docker info --format '{{.Name}}'").strip() == node.name


def test_no_service_of_the_system_is_a_container(nodes: list[Node]) -> None:
    for node in nodes:
        assert node.succeed("docker ps --all --quiet") == "", node
