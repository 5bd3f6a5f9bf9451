"""The swarm forms on its own, with the roles of the spec, and repairs itself, whatever happens to its nodes."""

import consul as py_consul
import pytest

from fixtures.containers import DockerRun
from swarmer import convergence
from swarmer.clients import consul_api, docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.ports import SWARM
from swarmer.secrets.credentials import consul_tokens
from swarmer.services import Services
from swarmer.spec import SwarmRole
from swarmer.wait import NotYet

three_managers = pytest.mark.needs_managers(3)


@pytest.mark.smoke
def test_every_node_is_in_the_swarm_in_the_role_of_the_spec(cluster: Cluster) -> None:
    roles = {
        SwarmRole.BOTH: (True, "active"),
        SwarmRole.MANAGER: (True, "drain"),
        SwarmRole.AGENT: (False, "active"),
    }
    members = {member.name: (member.manager, member.availability) for member in convergence.swarm_members(cluster)}
    assert members == {node.name: roles[node.server.swarm] for node in cluster.nodes}


def test_roles_and_labels_of_the_spec_are_labels_of_the_nodes(cluster: Cluster) -> None:
    labels = {member.name: member.labels for member in convergence.swarm_members(cluster)}
    assert labels == {node.name: {"swarm": str(node.server.swarm), **node.server.labels} for node in cluster.nodes}


@pytest.mark.smoke
def test_the_healthy_managers_and_the_leader_resolve(cluster: Cluster) -> None:
    managers = {str(node.ip) for node in cluster.swarm_managers}

    def resolved_leaders() -> set[str]:
        return {ip for node in cluster.nodes for ip in node.ask(f"leader.swarm.service.{domain}").records}

    domain = cluster.spec.domain
    for node in cluster.nodes:
        assert set(node.ask(f"swarm.service.{domain}").records) == managers, node
    cluster.until_true("the leader's name", lambda: resolved_leaders() == {str(cluster.swarm_leader().ip)}, timeout=5)


@three_managers
def test_a_manager_whose_engine_is_dead_does_not_resolve(cluster: Cluster, swarm_leader: Node, faults: Faults) -> None:
    node = next(node for node in cluster.swarm_managers if node is not swarm_leader)
    name = f"swarm.service.{cluster.spec.domain}"
    with faults.stop(node, unit="docker"):
        cluster.until_true(
            "its address to stop resolving", lambda: str(node.ip) not in node.ask(name).records, timeout=45
        )


@three_managers
def test_managers_without_a_quorum_do_not_resolve(cluster: Cluster, swarm_managers: list[Node], faults: Faults) -> None:
    """Consul keeps its quorum: only the port of the managers is blocked."""
    name = f"swarm.service.{cluster.spec.domain}"
    with faults.block(*swarm_managers, port=SWARM.number):
        cluster.until_equal("the managers' addresses", lambda: swarm_managers[0].ask(name).records, (), timeout=45)


def test_only_services_that_need_a_join_token_can_read_it(cluster: Cluster) -> None:
    for node in cluster.nodes:
        readable = {"swarm-manager": {"worker", "manager"}, "swarm-worker": {"worker"}}
        for service, name in consul_tokens(node.server).items():
            roles = _readable_join_tokens(cluster, node, cluster.credentials.tokens[name])
            assert roles == readable.get(service, set()), name
        assert _readable_join_tokens(cluster, node, "") == set(), f"clients of {node.name} without a token"


def test_a_rotated_join_token_is_recorded_and_the_former_one_is_refused(
    cluster: Cluster, swarm_leader: Node, swarm_workers: list[Node]
) -> None:
    before = {role: _token(cluster, role) for role in ("worker", "manager")}
    for role in before:
        swarm_leader.succeed(f"docker swarm join-token --rotate {role}")
    recorded = {role: _until_rotated(cluster, role, token) for role, token in before.items()}
    tokens = swarm_leader.docker.swarm
    tokens.reload()
    assert recorded == {role.lower(): token for role, token in tokens.attrs["JoinTokens"].items()}

    newcomer = next(node for node in reversed(swarm_workers) if node is not swarm_leader)
    newcomer.succeed("systemctl stop swarmer-swarm && docker swarm leave --force")
    try:
        refused = newcomer.fail(f"docker swarm join --token {before['worker']} {swarm_leader.ip}:2377")
        assert "A valid join token is necessary" in refused
    finally:
        newcomer.succeed("systemctl start swarmer-swarm")
    cluster.wait_converged()


def test_a_replaced_worker_is_in_the_swarm_once(
    cluster: Cluster, swarm_leader: Node, swarm_workers: list[Node]
) -> None:
    _replaced_once(cluster, next(node for node in reversed(swarm_workers) if node is not swarm_leader))


@three_managers
def test_a_replaced_manager_is_in_the_swarm_and_in_its_raft_once(
    cluster: Cluster, swarm_leader: Node, swarm_managers: list[Node]
) -> None:
    _replaced_once(cluster, next(node for node in reversed(swarm_managers) if node is not swarm_leader))


@three_managers
def test_a_replaced_leader_is_in_the_swarm_and_in_its_raft_once(cluster: Cluster, swarm_leader: Node) -> None:
    _replaced_once(cluster, swarm_leader)


def test_when_all_nodes_lost_power_the_swarm_is_the_same_again(cluster: Cluster, faults: Faults) -> None:
    before = _identity(cluster)
    with faults.power_off(*cluster.nodes):
        pass
    assert _identity(cluster) == before


def test_a_rebooted_node_is_in_the_swarm_with_its_former_id(cluster: Cluster, swarm_leader: Node) -> None:
    before = _identity(cluster)
    node = next(node for node in cluster.nodes if node is not swarm_leader or len(cluster.nodes) == 1)
    node.reboot()
    cluster.wait_converged()
    assert _identity(cluster) == before


@three_managers
def test_while_consul_has_no_leader_the_swarm_goes_on(cluster: Cluster, busybox_image: str) -> None:
    """Without consul no node joins, and no member leaves."""
    before = _identity(cluster)
    for node in cluster.consul_servers:
        node.succeed("systemctl stop consul")
    try:
        assert _identity(cluster) == before
        manager = cluster.swarm_managers[-1]
        manager.succeed(f"docker service create --quiet --name without-consul {busybox_image} sleep 1000", timeout=60)
        manager.succeed("docker service rm without-consul")
    finally:
        for node in cluster.consul_servers:
            node.succeed("systemctl start consul")
    cluster.wait_converged()
    assert _identity(cluster) == before


@three_managers
@pytest.mark.parametrize("returns", ["immediately", "when there is another swarm"])
def test_a_founder_that_dies_before_publishing_its_swarm_ends_up_in_the_common_one(
    cluster: Cluster, returns: str
) -> None:
    """The worst moment: the swarm exists, isn't published yet, and the lock is held."""
    founder, *others = cluster.swarm_managers
    _dissolve(cluster)
    _hold_the_lock(founder)
    founder.succeed(f"docker swarm init --listen-addr {founder.ip}:2377 --advertise-addr {founder.ip}:2377")
    made = founder.docker.info()["Swarm"]["Cluster"]["ID"]
    founder.power_off()
    if returns == "immediately":
        founder.power_on()
        _until_founded(cluster, timeout=60)
    for node in cluster.nodes:
        if node is not founder:
            node.succeed("systemctl start swarmer-swarm")
    if returns != "immediately":
        cluster.swarm_leader(among=others)
        founder.power_on()
    cluster.wait_converged()
    assert (_identity(cluster)[""] == made) is (returns == "immediately")


@three_managers
def test_when_the_only_member_of_a_swarm_is_replaced_the_others_found_a_new_one(cluster: Cluster) -> None:
    """The founder published its swarm, and was lost permanently before another node joined."""
    founder = cluster.swarm_managers[0]
    _dissolve(cluster)
    founder.succeed("systemctl start swarmer-swarm")
    _until_founded(cluster, timeout=15)
    made = founder.docker.info()["Swarm"]["Cluster"]["ID"]
    founder.power_off()
    for node in cluster.nodes:
        if node is not founder:
            node.succeed("systemctl start swarmer-swarm")
    founder.replace()
    cluster.wait_converged()
    assert _identity(cluster)[""] != made


@three_managers
def test_when_most_managers_lost_their_disks_the_remaining_one_continues_and_the_others_join_it(
    cluster: Cluster, services: Services, busybox_image: str
) -> None:
    """Consul has survived, since the disks are those of docker alone."""
    survivor, *lost = cluster.swarm_managers
    services.create("survives", f"--constraint=node.hostname=={survivor.name}", busybox_image, "sleep", "100000")
    services.wait_running("survives", 1)
    before = _identity(cluster)
    for node in lost:
        node.succeed("systemctl stop docker docker.socket swarmer-swarm && rm -r /var/lib/docker/swarm")
    for node in lost:
        node.succeed("systemctl start docker swarmer-swarm")
    cluster.wait_converged(timeout=150)
    after = _identity(cluster)
    assert (after[""], after[survivor.name]) == (before[""], before[survivor.name])
    services.wait_running("survives", 1)


def test_a_worker_that_was_removed_by_hand_joins_again(
    cluster: Cluster, swarm_leader: Node, swarm_agent: Node, docker_run: DockerRun
) -> None:
    """Docker doesn't inform a node that its managers have removed it. Containers that aren't tasks keep running."""
    docker_run(swarm_agent, "--name own")
    before = swarm_agent.succeed("docker inspect --format '{{.State.Pid}}' own")
    swarm_leader.succeed(f"docker node rm --force {swarm_agent.name}")
    _joins_again(cluster, swarm_agent)
    assert swarm_agent.succeed("docker inspect --format '{{.State.Pid}}' own") == before != "0\n"


def test_a_worker_that_counts_as_down_though_it_is_up_joins_again(
    cluster: Cluster, swarm_agent: Node, faults: Faults
) -> None:
    """The managers receive no heartbeats of a worker whose engine runs and is in the swarm.

    Docker can leave a node in this state for good, after a moment without a quorum, but only by coincidence. Here, the
    managers' port is blocked for the worker.
    """
    before = _identity(cluster)
    with faults.block(swarm_agent, port=SWARM.number):
        left = f"test \"$(docker info --format '{{{{.Swarm.NodeID}}}}')\" != {before[swarm_agent.name]}"
        swarm_agent.wait_until_succeeds(left, timeout=60)
    after = _identity(cluster)
    assert after.pop(swarm_agent.name) != before.pop(swarm_agent.name)
    assert after == before


@three_managers
def test_a_manager_that_was_removed_by_hand_joins_again(cluster: Cluster, swarm_leader: Node) -> None:
    node = next(node for node in cluster.swarm_managers if node is not swarm_leader)
    swarm_leader.succeed(f"docker node demote {node.name}")
    swarm_leader.wait_until_succeeds(f"docker node rm --force {node.name}")
    _joins_again(cluster, node)


# -- what the promises are made of -------------------------------------------------------------------------


def _identity(cluster: Cluster) -> dict[str, str]:
    """Node name to its id in the swarm, and the swarm's own id under no name."""

    def probe() -> dict[str, str]:
        members = convergence.swarm_members(cluster)
        return {member.name: member.id for member in members} | {"": str(cluster.swarm_leader().docker.swarm.id)}

    return cluster.until("a swarm with a leader", probe, timeout=30, retry_on=docker_api.Unavailable)


def _readable_join_tokens(cluster: Cluster, node: Node, token: str) -> set[str]:
    """The roles whose join tokens the agent returns for a token of consul."""
    api = consul_api.client(cluster.home, node.ip, token=token)
    return {role for role in ("worker", "manager") if _reads(api, f"swarm/join/{role}")}


def _reads(api: py_consul.Consul, key: str) -> bool:
    try:
        return api.kv.get(key)[1] is not None
    except py_consul.ACLPermissionDenied:
        return False


def _token(cluster: Cluster, role: str) -> str:
    """The join token that is recorded in consul; empty if there is none."""
    _, entry = cluster.consul.kv.get(f"swarm/join/{role}", consistency="consistent")
    return entry["Value"].decode() if entry else ""


def _until_founded(cluster: Cluster, *, timeout: float) -> None:
    """Wait until there is a swarm that nodes can join. Consul may be electing, or ask a leader that isn't back yet."""

    def probe() -> None:
        if not _token(cluster, "worker"):
            raise NotYet("no swarm is published")

    cluster.until("a founded swarm", probe, timeout=timeout, retry_on=consul_api.Unavailable)


def _until_rotated(cluster: Cluster, role: str, former: str) -> str:
    def probe() -> str:
        if (token := _token(cluster, role)) == former:
            raise NotYet("the former one")
        return token

    return cluster.until(f"another token for a {role}", probe, timeout=5)


def _replaced_once(cluster: Cluster, node: Node) -> None:
    """A node is replaced; the swarm then has it once, and its managers' raft has no other members than it should."""
    before = _identity(cluster)
    node.replace()
    cluster.wait_converged()
    after = _identity(cluster)
    assert after[node.name] != before[node.name]
    assert {**after, node.name: ""} == {**before, node.name: ""}
    # What counts toward the quorum is what the managers' raft has, and that is where they reach each other.
    managers = {f"{manager.ip}:2377" for manager in cluster.swarm_managers}
    for manager in cluster.swarm_managers:
        peers = {peer["Addr"] for peer in manager.docker.info()["Swarm"]["RemoteManagers"]}
        assert peers == managers, manager


def _joins_again(cluster: Cluster, node: Node) -> None:
    cluster.wait_converged()
    assert node.succeed("docker info --format '{{.Swarm.NodeID}}'").strip() == _identity(cluster)[node.name]


def _dissolve(cluster: Cluster) -> None:
    """No node is in a swarm, and consul knows of none, as at the first boot."""
    for node in cluster.nodes:
        node.succeed("systemctl stop swarmer-swarm")
    for node in cluster.nodes:
        node.succeed("docker swarm leave --force")
    for node in cluster.swarm_managers:
        node.consul.agent.service.deregister("swarm")
    assert cluster.consul.kv.delete("swarm/", recurse=True)


def _hold_the_lock(node: Node) -> None:
    """As the program of the node does it, before it founds a swarm."""
    session = node.consul.session.create(name="swarm", node=node.name, lock_delay=0, ttl=10, checks=["serfHealth"])
    assert node.consul.kv.put("swarm/lock", node.name, acquire=session)
