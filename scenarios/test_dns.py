"""Every node answers the cluster's names, for itself, its containers and whoever asks; with any one node down too."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from swarmer.clients import consul_api
from swarmer.clients.dns_client import Answer
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.ports import CONSUL_DNS
from swarmer.wait import NotYet

#: Seconds within which a name resolves, whatever single node is down.
BOUND = 1.0

Record = Callable[[str, object], None]

three_servers = pytest.mark.needs_servers(3)


@pytest.mark.smoke
def test_every_node_answers_the_names_of_all_nodes(cluster: Cluster) -> None:
    for asked in cluster.nodes:
        for node in cluster.nodes:
            answer = asked.ask(f"{node.name}.node.{cluster.spec.domain}")
            assert (answer.code, answer.records) == ("NOERROR", (str(node.ip),)), asked


@pytest.mark.parametrize("tcp", [False, True], ids=["UDP", "TCP"])
def test_every_node_answers_the_names_of_services_with_all_that_are_healthy(cluster: Cluster, tcp: bool) -> None:
    servers = {str(node.ip) for node in cluster.consul_servers}
    for asked in cluster.nodes:
        for name in (f"consul.service.{cluster.spec.domain}", f"consul.service.{cluster.spec.stack}"):
            answer = asked.ask(name, tcp=tcp)
            assert (answer.code, set(answer.records)) == ("NOERROR", servers), asked


def test_every_node_tells_the_name_of_an_address(cluster: Cluster) -> None:
    for asked in cluster.nodes:
        for node in cluster.nodes:
            answer = asked.ask(node.ip.reverse_pointer, "PTR")
            assert f"{node.name}.node.{cluster.spec.domain}." in answer.records, asked


def test_an_address_of_no_node_has_no_name(cluster: Cluster) -> None:
    for asked in cluster.nodes:
        for ip in (cluster.spec.host_address, cluster.spec.admin_network.broadcast_address):
            answer = asked.ask(ip.reverse_pointer, "PTR")
            assert (answer.code, answer.records) == ("NXDOMAIN", ()), (asked, ip)


def test_a_name_that_nothing_has_does_not_exist(cluster: Cluster) -> None:
    for asked in cluster.nodes:
        assert asked.ask(f"nothing.service.{cluster.spec.domain}").code == "NXDOMAIN", asked


def test_the_domains_between_the_names_exist_without_records(cluster: Cluster) -> None:
    domain, stack = cluster.spec.domain, cluster.spec.stack
    for asked in cluster.nodes:
        for name in (domain, f"node.{domain}", f"service.{domain}", f"query.{domain}", stack, f"service.{stack}"):
            for kind in ("A", "AAAA", "MX"):
                answer = asked.ask(name, kind)
                assert (answer.code, answer.records) == ("NOERROR", ()), (asked, name, kind)
        assert asked.ask(f"nothing.{domain}").code == "NXDOMAIN", asked


def test_names_outside_do_not_exist_where_the_cluster_may_not_reach_out(cluster: Cluster) -> None:
    if cluster.spec.internet:
        pytest.skip("needs a cluster that may not reach out: internet: false")
    for asked in cluster.nodes:
        for name, kind in (("www.example.com", "A"), ("www.example.com", "MX"), ("4.3.2.1.in-addr.arpa", "PTR")):
            answer = asked.ask(name, kind)
            assert answer.code == "NXDOMAIN", asked
            assert answer.seconds < cluster.scaled(0.5), asked


@pytest.mark.parametrize("first", ["corp.example", "service.other.{stack}", "node.{domain}"])
def test_a_search_list_goes_on_behind_a_domain_without_the_name(
    cluster: Cluster, busybox_image: str, first: str
) -> None:
    if cluster.spec.internet:
        pytest.skip("needs a cluster that may not reach out: internet: false")
    node, other = cluster.nodes[-1], first.format(stack=cluster.spec.stack, domain=cluster.spec.domain)
    servers = {str(server.ip) for server in cluster.consul_servers}
    cluster_domain = f"service.{cluster.spec.domain}"
    found = node.succeed(f"LOCALDOMAIN='{other} {cluster_domain}' getent ahostsv4 consul")
    assert {line.split()[0] for line in found.splitlines()} == servers
    node.succeed("docker network create searching")
    try:
        for network in ("bridge", "searching"):
            domains = f"--dns-search {other} --dns-search {cluster_domain}"
            node.succeed(f"docker run --rm --network {network} {domains} {busybox_image} ping -c 1 -W 5 consul")
    finally:
        node.succeed("docker network rm searching")


def test_a_node_knows_its_own_name(cluster: Cluster, busybox_image: str) -> None:
    for node in cluster.nodes:
        name = f"{node.name}.node.{cluster.spec.domain}"
        assert node.succeed("hostname -f").strip() == name
        found = node.succeed("python3 -c 'import socket; print(socket.gethostbyname(socket.gethostname()))'")
        assert found.strip() == str(node.ip)
        on_host = f"docker run --rm --network host {busybox_image}"
        assert node.succeed(f"{on_host} hostname -f").strip() == name
        assert f"({node.ip})" in node.succeed(f"{on_host} ping -c 1 -W 5 {node.name}")


def test_names_outside_are_forwarded_where_the_cluster_may_reach_out(cluster: Cluster) -> None:
    if not cluster.spec.internet:
        pytest.skip("needs a cluster that may reach out: internet: true")
    for asked in cluster.nodes:
        assert asked.ask("deb.debian.org", timeout=5).code == "NOERROR", asked


def test_nodes_resolve_by_their_own_dns(cluster: Cluster) -> None:
    for asked in cluster.nodes:
        for node in cluster.nodes:
            found = asked.succeed(f"getent ahostsv4 {node.name}.node.{cluster.spec.domain}")
            assert found.split()[0] == str(node.ip), asked


@pytest.mark.smoke
def test_containers_resolve_without_an_option(cluster: Cluster, busybox_image: str) -> None:
    for node in cluster.nodes:
        _resolves_inside(node, "docker run --rm", busybox_image)


def test_containers_in_a_network_of_a_user_resolve_without_an_option(cluster: Cluster, busybox_image: str) -> None:
    for node in cluster.nodes:
        node.succeed("docker network create names")
        try:
            _resolves_inside(node, "docker run --rm --network names", busybox_image)
        finally:
            node.succeed("docker network rm names")


def test_containers_in_a_network_over_all_nodes_resolve_without_an_option(
    swarm_managers: list[Node], swarm_workers: list[Node], busybox_image: str
) -> None:
    manager = swarm_managers[0]
    manager.succeed("docker network create --driver overlay --attachable names-everywhere")
    try:
        # Docker attaches nothing to such a network on a node that runs no tasks.
        for node in swarm_workers:
            _resolves_inside(node, "docker run --rm --network names-everywhere", busybox_image)
    finally:
        manager.wait_until_succeeds("docker network rm names-everywhere")


def test_containers_on_the_network_of_the_node_resolve_without_an_option(cluster: Cluster, busybox_image: str) -> None:
    for node in cluster.nodes:
        _resolves_inside(node, "docker run --rm --network host", busybox_image)


def test_a_service_is_found_once_it_is_registered_and_no_longer_than_that(cluster: Cluster) -> None:
    node = cluster.nodes[-1]
    name = f"found.service.{cluster.spec.domain}"

    def everywhere(code: str) -> bool:
        return all(asked.ask(name).code == code for asked in cluster.nodes)

    node.consul.agent.service.register("found", address="10.1.2.3")
    try:
        cluster.until_true(f"{name} on all nodes", lambda: everywhere("NOERROR"), timeout=BOUND)
    finally:
        node.consul.agent.service.deregister("found")
    cluster.until_true(f"the end of {name} on all nodes", lambda: everywhere("NXDOMAIN"), timeout=BOUND)


def test_more_instances_than_fit_in_a_packet_are_all_found(cluster: Cluster) -> None:
    node = cluster.nodes[-1]
    name = f"many.service.{cluster.spec.domain}"
    instances = {f"many-{number}": f"10.1.3.{number}" for number in range(1, 61)}
    try:
        for instance, address in instances.items():
            node.consul.agent.service.register("many", service_id=instance, address=address)

        def found() -> set[str]:
            # As a program on the node does it: over UDP, and again over TCP when told that there are more.
            return set(node.execute(f"getent ahostsv4 {name} | awk '$2 == \"STREAM\" {{print $1}}'").stdout.split())

        cluster.until_true("all of them", lambda: found() == set(instances.values()), timeout=5)
    finally:
        for instance in instances:
            node.consul.agent.service.deregister(instance)


@three_servers
def test_names_resolve_while_any_one_node_is_off_and_when_it_returns(
    cluster: Cluster, consul_leader: Node, faults: Faults, record_property: Record
) -> None:
    """Also while another node is elected in the place of consul's leader."""
    for node in (consul_leader, *(node for node in cluster.nodes if node is not consul_leader)):
        with _always_resolved(cluster, record_property, besides=node), faults.power_off(node):
            if node is consul_leader:
                cluster.consul_leader(among=[peer for peer in cluster.consul_servers if peer is not node])
            _every_node_has_been_asked(cluster, besides=node)


@three_servers
def test_names_resolve_while_a_node_is_replaced(
    cluster: Cluster, consul_follower: Node, record_property: Record
) -> None:
    with _always_resolved(cluster, record_property, besides=consul_follower):
        consul_follower.replace()
        cluster.wait_converged()


@three_servers
def test_names_resolve_while_most_consul_servers_are_off(cluster: Cluster, faults: Faults) -> None:
    survivor, *others = cluster.consul_servers
    _own_agent_knows_names(survivor)
    with faults.power_off(*others):
        answer = survivor.ask(f"{others[0].name}.node.{cluster.spec.domain}")
        assert answer.code == "NOERROR"
        assert answer.seconds < cluster.scaled(BOUND)


@three_servers
def test_a_node_resolves_while_its_own_agent_is_killed_and_restarts(
    cluster: Cluster, faults: Faults, record_property: Record
) -> None:
    for node in cluster.nodes:
        with _always_resolved(cluster, record_property), faults.kill(node, "consul"):
            assert node.ask(f"{node.name}.node.{cluster.spec.domain}").code == "NOERROR"


@three_servers
def test_a_node_resolves_while_its_own_agent_is_frozen(
    cluster: Cluster, consul_follower: Node, faults: Faults, record_property: Record
) -> None:
    with _always_resolved(cluster, record_property), faults.stop(consul_follower, unit="consul"):
        _every_node_has_been_asked(cluster)


@three_servers
def test_a_container_resolves_while_the_agent_of_its_node_is_stopped(consul_follower: Node, busybox_image: str) -> None:
    consul_follower.succeed("systemctl stop consul")
    try:
        _resolves_inside(consul_follower, "docker run --rm", busybox_image)
    finally:
        consul_follower.succeed("systemctl start consul")
        _own_agent_knows_names(consul_follower)


@pytest.mark.parametrize("unit", ["swarmer-dns", "swarmer-dns-consul"])
def test_the_dns_of_a_node_is_back_at_once_when_it_is_killed(cluster: Cluster, faults: Faults, unit: str) -> None:
    node = cluster.nodes[0]
    name = f"{node.name}.node.{cluster.spec.domain}"
    with faults.kill(node, unit):
        cluster.until_true("an answer", lambda: node.ask(name, timeout=0.2).code == "NOERROR", timeout=3)


# -- what the promises are made of -------------------------------------------------------------------------


def _resolves_inside(node: Node, run: str, image: str) -> None:
    """A container finds every node by name, and is told that others don't exist."""
    cluster = node.cluster
    for peer in cluster.nodes:
        found = node.succeed(f"{run} {image} nslookup -type=a {peer.name}.node.{cluster.spec.domain}")
        assert f"Address: {peer.ip}" in found, node
    node.fail(f"{run} {image} nslookup -type=a nothing.service.{cluster.spec.domain}")


class _Asker:
    """Asks nodes for names, over and over, and keeps what was not as promised."""

    def __init__(self, cluster: Cluster, asked: list[Node]) -> None:
        self.cluster = cluster
        self.asked = asked
        # What may be answered, and at least one of it is to be.
        self.right = {f"{node.name}.node.{cluster.spec.domain}": {str(node.ip)} for node in cluster.nodes}
        self.right[f"consul.service.{cluster.spec.domain}"] = {str(node.ip) for node in cluster.consul_servers}
        self.rounds = 0
        self.slowest = 0.0
        self.failures: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._end.wait(self.cluster.scaled(0.02)):
            for node in self.asked:
                for name in self.right:
                    self._judge(node, name, node.ask(name))
            self.rounds += 1

    def _judge(self, node: Node, name: str, answer: Answer) -> None:
        self.slowest = max(self.slowest, answer.seconds)
        known = bool(answer.records) and self.right[name].issuperset(answer.records)
        if not known or answer.seconds > node.scaled(BOUND):
            said = f"{answer.code} {' '.join(answer.records)}"
            self.failures.append(f"{node.name} said {said} to {name} after {answer.seconds:.2f} s")

    def __enter__(self) -> "_Asker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


@contextmanager
def _always_resolved(cluster: Cluster, record_property: Record, *, besides: Node | None = None) -> Iterator[None]:
    """All the while, every node but one answers every name, right and in time."""
    with _Asker(cluster, [node for node in cluster.nodes if node is not besides]) as asker:
        cluster.until_true("answers", lambda: asker.rounds > 2, timeout=10)
        yield
        seen = asker.rounds
        cluster.until_true("more answers", lambda: asker.rounds > seen + 2, timeout=10)
    record_property("slowest_answer_seconds", round(asker.slowest, 3))
    assert asker.failures == []


def _own_agent_knows_names(node: Node) -> None:
    """The node's own consul server follows a leader, and has caught up with it."""

    def probe() -> None:
        if not node.consul.status.leader():
            raise NotYet("no leader")
        answer = node.ask(f"{node.name}.node.{node.cluster.spec.domain}", port=CONSUL_DNS.number, timeout=0.5)
        if answer.code != "NOERROR":
            raise NotYet(answer.code)

    node.until(f"the consul server of {node.name}", probe, timeout=15, retry_on=consul_api.Unavailable)


def _every_node_has_been_asked(cluster: Cluster, *, besides: Node | None = None) -> None:
    """Long enough for each kind of answer to have been seen: all nodes, one after another, ten times."""
    for _ in range(10):
        for node in cluster.nodes:
            if node is not besides:
                assert node.ask(f"consul.service.{cluster.spec.domain}").code == "NOERROR", node
