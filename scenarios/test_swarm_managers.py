"""The managers of the spec stay managers: no election, loss or mistake removes a healthy one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from swarmer import convergence
from swarmer.clients import consul_api, docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.node.swarm.reconcile import HELD_ROLE
from swarmer.ports import SWARM
from swarmer.wait import NotYet

three_managers = pytest.mark.needs_managers(3)

#: In the second after an election, docker may show a manager under the host name of a worker, now and then: one loss
#: proves little, ten take minutes.
TIMES = [1, pytest.param(10, marks=pytest.mark.long)]

#: Seconds from the moment that a manager of the spec becomes a worker until it is a manager again.
PROMOTION_BOUND = 30.0

#: Longer than the leader has to see a node of the cluster as superfluous, or as demoted, before it acts: 10 s.
LONG_ENOUGH = 20.0


@three_managers
@pytest.mark.usefixtures("swarm_agent")
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("loss", ["kill -9 of docker", "power-off"])
def test_after_each_loss_of_the_leader_the_managers_are_the_same(
    cluster: Cluster, faults: Faults, loss: str, times: int
) -> None:
    before = _members(cluster)
    for _ in range(times):
        leader = cluster.swarm_leader()
        others = [node for node in cluster.swarm_managers if node is not leader]
        with faults.power_off(leader) if loss == "power-off" else faults.kill(leader, "docker"):
            cluster.swarm_leader(among=others)
        assert _members(cluster) == before


@three_managers
@pytest.mark.parametrize("mistaken", ["a manager for an agent", "an agent for a manager"])
def test_a_node_that_docker_shows_under_the_name_of_another_keeps_its_own_labels_and_role(
    cluster: Cluster, swarm_agent: Node, swarm_leader: Node, mistaken: str
) -> None:
    """Docker shows managers so for a moment after an election; here it lasts."""
    manager = next(node for node in cluster.swarm_managers if node is not swarm_leader)
    node, other = (manager, swarm_agent) if mistaken.startswith("a manager") else (swarm_agent, manager)
    before = _members(cluster)
    labels = {member.id: member.labels for member in convergence.swarm_members(cluster)}
    with _called(node, other.name):
        _until_shown(swarm_leader, _id_of(before, node), other.name)
        end = time.monotonic() + cluster.scaled(LONG_ENOUGH)
        while time.monotonic() < end:
            members = docker_api.members(cluster.swarm_leader().docker)
            assert {member.id: member.manager for member in members} == {
                identity: is_manager for identity, (_, is_manager) in before.items()
            }
            assert {member.id: member.labels for member in members} == labels
            cluster.pause(1)
    cluster.wait_converged()
    assert _members(cluster) == before


@three_managers
def test_a_manager_that_was_demoted_by_hand_is_a_manager_again(cluster: Cluster) -> None:
    before = _members(cluster)
    for node in cluster.swarm_managers:  # the leader among them
        cluster.swarm_leader().succeed(f"docker node demote {node.name}")
        cluster.until_equal("the managers", lambda: _members(cluster), before, timeout=PROMOTION_BOUND)
        cluster.wait_converged()


@three_managers
def test_a_manager_that_is_demoted_on_purpose_stays_a_worker(cluster: Cluster, swarm_leader: Node) -> None:
    node = next(node for node in cluster.swarm_managers if node is not swarm_leader)
    swarm_leader.succeed(f"docker node update --label-add {HELD_ROLE}=worker --role worker {node.name}")

    def manages() -> bool:
        return next(member for member in docker_api.members(swarm_leader.docker) if member.name == node.name).manager

    try:
        # Docker takes a moment to carry out what it has accepted.
        cluster.until_equal(f"whether {node.name} manages the swarm", manages, False, timeout=10)
        end = time.monotonic() + cluster.scaled(LONG_ENOUGH)
        while time.monotonic() < end:
            assert not manages()
            cluster.pause(1)
    finally:
        swarm_leader.succeed(f"docker node update --label-rm {HELD_ROLE} {node.name}")
    cluster.wait_converged()


def test_an_availability_set_by_hand_is_kept_and_a_new_node_gets_that_of_the_spec(
    cluster: Cluster, swarm_leader: Node, swarm_workers: list[Node]
) -> None:
    node = next(node for node in reversed(swarm_workers) if node is not swarm_leader or len(cluster.nodes) == 1)
    swarm_leader.succeed(f"docker node update --availability drain {node.name}")
    try:
        cluster.pause(LONG_ENOUGH)
        assert _availability(cluster, node) == "drain"
    finally:
        swarm_leader.succeed(f"docker node update --availability active {node.name}")
    if node is swarm_leader:
        return
    node.succeed("systemctl stop swarmer-swarm && docker swarm leave --force")
    _join_by_hand(node, swarm_leader, "--availability drain")
    node.succeed("systemctl start swarmer-swarm")
    cluster.wait_converged()
    assert _availability(cluster, node) == "active"


def test_a_node_outside_the_spec_is_removed_after_a_while(
    cluster: Cluster, swarm_leader: Node, swarm_agent: Node
) -> None:
    """Such a node has a join token and passes the packet filter: here, one that joins under another name."""
    before = _members(cluster)
    swarm_agent.succeed("systemctl stop swarmer-swarm && docker swarm leave --force")
    try:
        with _called(swarm_agent, "foreign"):
            foreign = _join_by_hand(swarm_agent, swarm_leader)
            _until_shown(swarm_leader, foreign, "foreign")
            joined = time.monotonic()
            cluster.until_equal("its end", lambda: foreign in _members(cluster), False, timeout=60)
            assert time.monotonic() - joined > 20
            swarm_agent.succeed("docker swarm leave --force")
    finally:
        swarm_agent.succeed("systemctl start swarmer-swarm")
    cluster.wait_converged()
    after = _members(cluster)
    assert {name for name, _ in after.values()} == {name for name, _ in before.values()}


def test_an_entry_without_a_host_name_is_reported(cluster: Cluster, swarm_leader: Node, swarm_agent: Node) -> None:
    unnamed = _leave_an_entry_without_a_name(swarm_leader, swarm_agent)
    try:
        with pytest.raises(NotYet, match=f"never reported a host name: {unnamed}"):
            convergence.check_swarm(cluster)
    finally:
        swarm_leader.succeed(f"docker node rm --force {unnamed}")


@pytest.mark.long
def test_an_entry_without_a_host_name_is_removed_after_some_minutes(
    cluster: Cluster, swarm_leader: Node, swarm_agent: Node
) -> None:
    unnamed = _leave_an_entry_without_a_name(swarm_leader, swarm_agent)
    cluster.until_equal("its end", lambda: unnamed in _members(cluster), False, timeout=240, interval=1)
    cluster.wait_converged()


@three_managers
@pytest.mark.parametrize("record", ["an old one", "none"])
def test_managers_do_not_leave_their_swarm_for_one_that_is_recorded_by_mistake(cluster: Cluster, record: str) -> None:
    """As after a restored snapshot of consul. The state of the swarm would be lost."""
    before = _members(cluster)
    swarm = cluster.swarm_leader().docker.swarm.id
    if record == "none":
        assert cluster.consul.kv.delete("swarm/", recurse=True)
    else:
        assert cluster.consul.kv.put("swarm/cluster", "abcdefghijklmnopqrstuvwxy")

    def recorded() -> str:
        _, entry = cluster.consul.kv.get("swarm/cluster", consistency="consistent")
        return entry["Value"].decode() if entry else ""

    cluster.until_equal("the recorded swarm", recorded, swarm, timeout=30, retry_on=consul_api.Unavailable)
    cluster.pause(LONG_ENOUGH)
    cluster.wait_converged()
    assert _members(cluster) == before
    assert convergence.swarm_ids(cluster) == {name: identity for identity, (name, _) in before.items()}


# -- what the promises are made of -------------------------------------------------------------------------


def _members(cluster: Cluster) -> dict[str, tuple[str, bool]]:
    """The id of each node in the swarm to its name and whether it is a manager."""
    members = cluster.until(
        "the nodes of the swarm",
        lambda: convergence.swarm_members(cluster),
        timeout=60,
        retry_on=docker_api.Unavailable,
    )
    return {member.id: (member.name, member.manager) for member in members}


def _id_of(members: dict[str, tuple[str, bool]], node: Node) -> str:
    """The id of a node."""
    return next(identity for identity, (name, _) in members.items() if name == node.name)


def _availability(cluster: Cluster, node: Node) -> str:
    return next(member.availability for member in convergence.swarm_members(cluster) if member.name == node.name)


def _join_by_hand(node: Node, manager: Node, options: str = "") -> str:
    """A node joins as a worker, without its own program; its id in the swarm."""
    token = manager.succeed("docker swarm join-token --quiet worker").strip()
    node.succeed(f"docker swarm join {options} --token {token} {manager.ip}:{SWARM.number}")
    return node.succeed("docker info --format '{{.Swarm.NodeID}}'").strip()


def _leave_an_entry_without_a_name(manager: Node, node: Node) -> str:
    """What a join leaves behind that docker tried twice, here that of a node without a name; the id of the entry."""
    node.succeed("systemctl stop swarmer-swarm && docker swarm leave --force")
    try:
        with _called(node, ""):
            unnamed = _join_by_hand(node, manager)
            node.succeed("docker swarm leave --force")
    finally:
        node.succeed("systemctl start swarmer-swarm")
    return unnamed


def _until_shown(manager: Node, identity: str, name: str) -> None:
    """Wait until docker shows an entry under this name."""

    def probe() -> None:
        shown = {member.id: member.name for member in docker_api.members(manager.docker)}
        if shown.get(identity) != name:
            raise NotYet(f"shown as {shown.get(identity)}")

    manager.until(f"{identity} to be shown as {name}", probe, timeout=30, retry_on=docker_api.Unavailable)


@contextmanager
def _called(node: Node, name: str) -> Iterator[None]:
    """Let the engine of a node report another host name."""
    rename = "import socket, sys; socket.sethostname(sys.argv[1])"
    node.succeed(f"python3 -c '{rename}' '{name}' && systemctl restart docker")
    try:
        yield
    finally:
        node.succeed(f"python3 -c '{rename}' {node.name} && systemctl restart docker")
