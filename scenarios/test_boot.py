"""Every node boots by cloud-init alone, clean, and opens no door that isn't in the port table."""

import json
import re
import socket

import pytest

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.ports import PORTS, SSH
from swarmer.spec import ConsulRole, SwarmRole


def test_cloud_init_ends_clean_on_every_node(nodes: list[Node]) -> None:
    for node in nodes:
        status = json.loads(node.succeed("cloud-init status --format json"))
        assert status["status"] == "done", node
        assert status["errors"] == [], node
        assert status["recoverable_errors"] == {}, node


@pytest.mark.smoke
def test_no_unit_fails(nodes: list[Node]) -> None:
    for node in nodes:
        assert node.succeed("systemctl list-units --failed --plain --no-legend") == "", node
        assert node.succeed("systemctl is-system-running").strip() == "running", node


def test_every_node_runs_the_versions_of_its_image(cluster: Cluster) -> None:
    for node in cluster.nodes:
        listing = node.succeed("dpkg-query -W -f '${Package} ${Version}\n'")
        installed = dict(line.split(" ", 1) for line in listing.splitlines())
        consul = node.succeed("consul version").splitlines()[0].removeprefix("Consul v")
        assert tuple(int(part) for part in re.findall(r"\d+", consul)[:3]) == cluster.image.consul_version
        packaged = {name: version for name, version in cluster.image.versions.items() if name in installed}
        packaged["consul"] = installed["consul"]
        assert installed == packaged, node


@pytest.mark.smoke
def test_every_node_listens_on_the_ports_of_the_port_table_and_on_no_others(nodes: list[Node]) -> None:
    for node in nodes:
        roles = {"every"}
        roles |= {"server"} if node.server.consul is ConsulRole.SERVER else set()
        roles |= {"manager"} if node.server.swarm is not SwarmRole.AGENT else set()
        addresses = {"admin": str(node.ip), "loopback": "127.0.0.1", "all": "0.0.0.0"}
        expected = {
            (protocol, addresses[reach], port.number)
            for port in PORTS
            if port.role in roles
            for protocol in port.protocols
            for reach in port.reach
        }
        assert _listening(node) == expected, node


def test_every_node_knows_its_own_name_and_has_keys_of_its_own(nodes: list[Node]) -> None:
    assert [node.succeed("hostname").strip() for node in nodes] == [node.name for node in nodes]
    for secret in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/swarmer/consul/node.pem"):
        assert len({node.succeed(f"cat {secret}") for node in nodes}) == len(nodes), secret


@pytest.mark.smoke
def test_secrets_on_a_node_are_readable_by_their_service_only(nodes: list[Node]) -> None:
    for node in nodes:
        readable = node.succeed(
            "find /var/lib/cloud /run/cloud-init /etc/swarmer /var/log -type f -perm /o+r -exec cat {} +"
        )
        credentials = node.cluster.credentials
        assert credentials.mask(readable) == readable, node
        assert "PRIVATE KEY" not in readable, node


def test_nodes_reach_each_other_and_nothing_beyond(nodes: list[Node], cluster: Cluster) -> None:
    for node in nodes:
        for peer in nodes:
            node.succeed(f"ping -c1 -W2 {peer.ip}")
        if not cluster.spec.internet:
            assert "Network is unreachable" in node.fail("ping -c1 -W1 192.0.2.1")


def test_an_image_without_seed_data_stays_idle(cluster: Cluster) -> None:
    node = cluster.nodes[-1]
    node.power_off()
    cluster.stack.replace(node.server, None, cluster.image)
    cluster.until_true(f"the end of {node.name}'s boot", lambda: "multi-user.target" in node.console(), timeout=60)
    console = node.console()
    with pytest.raises(OSError):
        socket.create_connection((str(node.ip), SSH.number), timeout=2)
    assert "FAILED" not in console
    for service in ("consul.service", "docker.service"):
        assert f"Started {service}" not in console
    node.replace()


@pytest.mark.parametrize("unit", ["apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service"])
def test_a_node_never_updates_itself(nodes: list[Node], unit: str) -> None:
    for node in nodes:
        assert node.execute(f"systemctl is-active {unit}").stdout.strip() == "inactive", node


def _listening(node: Node) -> set[tuple[str, str, int]]:
    sockets = set()
    for line in node.succeed("ss -Hlntu").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, port = local.rsplit(":", 1)
        sockets.add((protocol, address.split("%")[0].strip("[]"), int(port)))
    return sockets
