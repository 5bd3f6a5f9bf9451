"""The announced services are right, whatever restarts, dies or is missed, and nothing is written without a change."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures.containers import DockerRun
from fixtures.registrator import SOON, Announced, StartRegistrator
from swarmer.clients import consul_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.ports import CONSUL_DNS_OF_SERVERS
from swarmer.wait import NotYet

WEB = "-p 8080:80"

#: Seconds for what has to wait for consul or docker to be up again first.
AFTER_RESTART = 15.0


def test_a_resync_that_changes_nothing_writes_nothing(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name plain {WEB} -e SERVICE_TAGS=b,a -e SERVICE_REGION=eu")
    run_container(node, "--name many -p 8081:80 -p 8082:53/udp -e SERVICE_CHECK_SCRIPT=true")
    run_container(node, f"--name healthy -p 8083:80 --health-cmd true --health-interval={node.scaled(0.2):g}s")
    by = start_registrator(node, f"-resync=1 -ttl={node.scaled(10):.0f} -ttl-refresh=1")
    for name in ("plain:80", "many:80", "many:53:udp", "healthy:80"):
        announced.wait(node, f"{by}:{name}", by=by)
    for check in (f"healthcheck:{by}:healthy:80", f"service:{by}:many:80", f"service:{by}:many:53:udp"):
        announced.wait_status(node, check, "passing")
        announced.wait_status(node, check.replace(by, node.name), "passing")
    before = _settled_writes(node)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert consul_api.catalog_writes(node.consul, node.name) == before
    # And it did resync meanwhile: what only a resync notices is noticed in time.
    node.consul.agent.service.deregister(f"{by}:plain:80")
    announced.wait(node, f"{by}:plain:80", by=by, timeout=2)


def test_a_killed_registrator_corrects_the_services_when_it_returns(
    node: Node, announced: Announced, run_container: DockerRun, faults: Faults
) -> None:
    run_container(node, f"--name stays {WEB}")
    run_container(node, "--name goes -p 8081:80")
    announced.wait(node, f"{node.name}:goes:80")
    stays = announced.wait(node, f"{node.name}:stays:80")
    with faults.kill(node, "swarmer-registrator"):
        node.succeed("docker rm -f goes")
        run_container(node, "--name comes -p 8082:80")
    announced.wait(node, f"{node.name}:comes:80")
    announced.wait_gone(node, f"{node.name}:goes:80")
    assert announced.wait(node, f"{node.name}:stays:80") == stays


def test_nothing_that_starts_while_it_starts_is_missed(
    node: Node, announced: Announced, run_container: DockerRun, faults: Faults
) -> None:
    with faults.kill(node, "swarmer-registrator"):
        for number in range(10):
            run_container(node, f"--name c{number} -p {8080 + number}:80")
    for number in range(10):
        announced.wait(node, f"{node.name}:c{number}:80")


def test_changes_while_it_is_frozen_are_announced_afterwards(
    node: Node, announced: Announced, run_container: DockerRun, faults: Faults
) -> None:
    run_container(node, f"--name goes {WEB}")
    announced.wait(node, f"{node.name}:goes:80")
    with faults.stop(node, unit="swarmer-registrator"):
        node.succeed("docker rm -f goes")
        run_container(node, "--name comes -p 8082:80")
    announced.wait(node, f"{node.name}:comes:80")
    announced.wait_gone(node, f"{node.name}:goes:80")


def test_a_restart_of_docker_neither_loses_nor_leaves_a_service(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name back {WEB} --restart=always")
    run_container(node, "--name over -p 8081:80")
    announced.wait(node, f"{node.name}:over:80")
    pid = node.main_pid("swarmer-registrator")
    node.succeed("systemctl restart docker")
    announced.wait_gone(node, f"{node.name}:over:80")
    announced.wait(node, f"{node.name}:back:80", timeout=AFTER_RESTART)
    # It listens again, and didn't have to be restarted for that.
    run_container(node, "--name new -p 8082:80")
    announced.wait(node, f"{node.name}:new:80")
    assert node.main_pid("swarmer-registrator") == pid


def test_a_killed_docker_neither_loses_nor_leaves_a_service(
    node: Node, announced: Announced, run_container: DockerRun, faults: Faults
) -> None:
    run_container(node, f"--name back {WEB} --restart=always")
    run_container(node, "--name over -p 8081:80")
    announced.wait(node, f"{node.name}:over:80")
    with faults.kill(node, "docker"):
        pass
    announced.wait_gone(node, f"{node.name}:over:80", timeout=AFTER_RESTART)
    announced.wait(node, f"{node.name}:back:80", timeout=AFTER_RESTART)
    run_container(node, "--name new -p 8082:80")
    announced.wait(node, f"{node.name}:new:80")


def test_while_docker_is_stopped_no_container_is_announced(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name back {WEB} --restart=always")
    announced.wait(node, f"{node.name}:back:80")
    node.succeed("systemctl stop docker.socket docker")
    try:
        announced.wait_gone(node, f"{node.name}:back:80")
    finally:
        node.succeed("systemctl start docker")
    announced.wait(node, f"{node.name}:back:80", timeout=AFTER_RESTART)


def test_a_restart_of_consul_loses_nothing(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name stays {WEB}")
    run_container(node, "--name goes -p 8081:80")
    announced.wait(node, f"{node.name}:goes:80")
    node.succeed("systemctl stop consul")
    node.succeed("docker rm -f goes")
    run_container(node, "--name comes -p 8082:80")
    node.succeed("systemctl start consul")
    announced.wait_exactly(node, {f"{node.name}:stays:80", f"{node.name}:comes:80"}, timeout=AFTER_RESTART)
    cluster.wait_converged()


def test_an_agent_that_lost_its_services_gets_them_back(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name web {WEB}")
    announced.wait(node, f"{node.name}:web:80")
    node.succeed("systemctl stop consul; rm -r /var/lib/consul/services /var/lib/consul/checks; systemctl start consul")
    announced.wait_exactly(node, {f"{node.name}:web:80"}, timeout=AFTER_RESTART)
    cluster.wait_converged()


@pytest.mark.needs_servers(3)
def test_the_services_of_a_node_that_lost_power_do_not_resolve_until_they_run_again(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun, faults: Faults
) -> None:
    run_container(node, f"--name back {WEB} --restart=always -e SERVICE_NAME=twin")
    run_container(node, "--name over -p 8081:80 -e SERVICE_NAME=over")
    run_container(cluster.nodes[0], f"--name other {WEB} -e SERVICE_NAME=twin")
    announced.wait(node, f"{node.name}:over:80")
    announced.wait(cluster.nodes[0], f"{cluster.nodes[0].name}:other:80")
    asked = cluster.nodes[0]
    with faults.power_off(node):
        # Any server answers for DNS, a moment behind the leader.
        cluster.until_equal(
            "every server to know that the node is dead",
            lambda: _codes_of_servers(cluster, "over"),
            {"NXDOMAIN"},
            timeout=20,
        )
        assert _found(cluster, asked, "twin") == {str(asked.ip)}
        with _never_found(cluster, asked, "over"):
            node.power_on()
            both = {str(asked.ip), str(node.ip)}
            cluster.until_equal(
                "the service of both nodes", lambda: _found(cluster, asked, "twin"), both, timeout=AFTER_RESTART
            )
    _, entries = cluster.consul.catalog.service("twin", consistency="consistent")
    assert sorted(entry["Node"] for entry in entries) == sorted([asked.name, node.name])


@pytest.mark.needs_servers(3)
def test_the_services_of_a_replaced_node_do_not_resolve(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name over {WEB} --restart=always -e SERVICE_NAME=over")
    announced.wait(node, f"{node.name}:over:80")
    asked = cluster.nodes[0]
    node.power_off()
    cluster.until_equal("the resolved addresses", lambda: _found(cluster, asked, "over"), set(), timeout=20)
    node.replace()
    cluster.wait_converged()
    assert _found(cluster, asked, "over") == set()
    _, entries = cluster.consul.catalog.service("over", consistency="consistent")
    assert entries == []


def test_after_a_reboot_only_running_containers_are_announced(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name back {WEB} --restart=always")
    run_container(node, "--name over -p 8081:80")
    announced.wait(node, f"{node.name}:over:80")
    node.reboot()
    announced.wait_exactly(node, {f"{node.name}:back:80"}, timeout=AFTER_RESTART)
    cluster.wait_converged()


def _codes_of_servers(cluster: Cluster, name: str) -> set[str]:
    """The answers of the running consul servers for the name of a service, each from its own state."""
    servers = [server for server in cluster.consul_servers if server.running]
    full = f"{name}.service.{cluster.spec.domain}"
    return {server.ask(full, port=CONSUL_DNS_OF_SERVERS.number).code for server in servers}


def _found(cluster: Cluster, asked: Node, name: str) -> set[str]:
    return set(asked.ask(f"{name}.service.{cluster.spec.domain}").records)


@contextmanager
def _never_found(cluster: Cluster, asked: Node, name: str) -> Iterator[None]:
    """Check throughout the block that a name doesn't resolve."""
    end = threading.Event()
    found: list[float] = []
    start = time.monotonic()

    def watch() -> None:
        while not end.wait(0.02):
            if _found(cluster, asked, name):
                found.append(round(time.monotonic() - start, 2))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    assert not found, f"{name} was found {len(found)} times, {found[0]} to {found[-1]} s after the beginning"


def _settled_writes(node: Node) -> dict[str, int]:
    """The number of writes, once the agent has synced everything to the catalog."""
    last: dict[str, int] = {}

    def probe() -> dict[str, int]:
        nonlocal last
        before, last = last, consul_api.catalog_writes(node.consul, node.name)
        if last != before or not {f"service:{key}" for key in node.consul.agent.services()} <= last.keys():
            raise NotYet("still written")
        return last

    return node.until("the catalog to settle", probe, timeout=SOON, interval=0.5)
