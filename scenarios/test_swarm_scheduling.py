"""The swarm runs its services where their constraints allow, whatever happens to its nodes."""

import time
from collections.abc import Callable

import pytest

from swarmer.clients import docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.services import Services

#: Seconds from a node's power-off until all its tasks run elsewhere. A node says every 2 s that it lives, and counts
#: as down after three missing signs; then come the new containers. The rest is slack for a busy host.
RESCHEDULING_BOUND = 20.0

#: Seconds from the leader's loss until another manager leads and answers. Docker's managers wait for 10 to 20 s
#: before they elect, which can't be set; a split vote costs as much again.
ELECTION_BOUND = 45.0

SLEEP = ("sleep", "100000")

Record = Callable[[str, object], None]

two_workers = pytest.mark.needs_workers(2)
three_managers = pytest.mark.needs_managers(3)


# -- where tasks run ---------------------------------------------------------------------------------------


def test_replicas_are_spread_over_all_nodes_that_run_tasks(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    services.create("spread", f"--replicas={2 * len(swarm_workers)}", busybox_image, *SLEEP)
    services.wait_running("spread", lambda running: running == {node.name: 2 for node in swarm_workers})


def test_constraints_choose_the_node(services: Services, swarm_workers: list[Node], busybox_image: str) -> None:
    chosen = swarm_workers[-1]
    services.create("chosen", "--replicas=3", f"--constraint=node.hostname=={chosen.name}", busybox_image, *SLEEP)
    services.create("others", "--mode=global", f"--constraint=node.hostname!={chosen.name}", busybox_image, *SLEEP)
    services.wait_running("chosen", lambda running: running == {chosen.name: 3})
    others = {node.name: 1 for node in swarm_workers if node is not chosen}
    services.wait_running("others", lambda running: running == others)


def test_constraints_choose_by_labels_of_the_spec(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    labels = [(key, value, node) for node in swarm_workers for key, value in node.server.labels.items()]
    if not labels:
        pytest.skip("needs a node that runs tasks and has labels in servers.yml")
    key, value, _ = labels[0]
    labelled = {node.name: 1 for node in swarm_workers if node.server.labels.get(key) == value}
    services.create("labelled", "--mode=global", f"--constraint=node.labels.{key}=={value}", busybox_image, *SLEEP)
    services.wait_running("labelled", lambda running: running == labelled)
    services.create("nowhere", f"--constraint=node.labels.{key}==no-such", busybox_image, *SLEEP)
    services.cluster.until_true(
        "the reason why it runs nowhere",
        lambda: any("no suitable node" in task.problem for task in services.tasks("nowhere")),
        timeout=10,
    )
    assert services.running("nowhere") == {}


def test_no_node_runs_more_replicas_than_allowed(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    number = len(swarm_workers) + 1
    services.create("few", f"--replicas={number}", "--replicas-max-per-node=1", busybox_image, *SLEEP)
    services.wait_running("few", lambda running: running == {node.name: 1 for node in swarm_workers})
    waiting = [task for task in services.tasks("few") if task.wanted and not task.running]
    assert [task.state for task in waiting] == ["pending"]
    assert "max replicas per node limit exceed" in waiting[0].problem


@two_workers
def test_a_drained_node_empties(services: Services, swarm_workers: list[Node], busybox_image: str) -> None:
    drained = swarm_workers[0]
    number = 2 * len(swarm_workers)
    services.create("drained", f"--replicas={number}", busybox_image, *SLEEP)
    services.wait_running("drained", number)
    assert services.running("drained")[drained.name] > 0
    services.docker("node", "update", "--availability=drain", drained.name)
    try:
        services.wait_running("drained", lambda run: sum(run.values()) == number and drained.name not in run)
        drained.wait_until_succeeds('test -z "$(docker ps --quiet)"', timeout=20)
    finally:
        services.docker("node", "update", "--availability=active", drained.name)


def test_a_global_service_reaches_a_node_that_is_added_later(
    cluster: Cluster,
    services: Services,
    swarm_workers: list[Node],
    busybox_image: str,
    load_image: Callable[[Node], str],
) -> None:
    if len(cluster.nodes) < 3:
        pytest.skip("needs three nodes: one is away")
    leader = cluster.swarm_leader()
    added = next(node for node in reversed(swarm_workers) if node is not leader)
    added.power_off()
    services.create("everywhere", "--mode=global", busybox_image, *SLEEP)
    before = {node.name: 1 for node in swarm_workers if node is not added}
    services.wait_running("everywhere", lambda running: before.items() <= running.items())
    added.replace()
    load_image(added)
    services.wait_running("everywhere", lambda running: running == {**before, added.name: 1})


# -- when nodes are lost -----------------------------------------------------------------------------------


@two_workers
def test_tasks_of_a_node_that_lost_power_run_elsewhere_in_time(
    cluster: Cluster,
    services: Services,
    swarm_workers: list[Node],
    busybox_image: str,
    faults: Faults,
    record_property: Record,
) -> None:
    if len(cluster.nodes) < 3:
        pytest.skip("needs three nodes: one is lost")
    leader = cluster.swarm_leader()
    lost = next(node for node in reversed(swarm_workers) if node is not leader)
    number = 2 * len(swarm_workers)
    services.create("moving", f"--replicas={number}", busybox_image, *SLEEP)
    services.wait_running("moving", number)
    assert services.running("moving")[lost.name] > 0
    start = time.monotonic()
    with faults.power_off(lost):
        services.wait_running("moving", lambda run: sum(run.values()) == number and lost.name not in run)
        seconds = round(time.monotonic() - start, 2)
    record_property("seconds_until_tasks_run_elsewhere", seconds)
    assert seconds < cluster.scaled(RESCHEDULING_BOUND)
    # What the lost node ran is not run twice when it returns.
    services.wait_running("moving", number)
    cluster.until_true("the former tasks to be gone", lambda: services.containers(lost, "moving") == [], timeout=20)


@three_managers
def test_when_the_leader_is_lost_another_is_elected_and_answers(
    cluster: Cluster,
    services: Services,
    swarm_leader: Node,
    busybox_image: str,
    faults: Faults,
    record_property: Record,
) -> None:
    others = [node for node in cluster.swarm_managers if node is not swarm_leader]
    start = time.monotonic()
    with faults.power_off(swarm_leader):
        elected = cluster.swarm_leader(among=others, timeout=ELECTION_BOUND)
        record_property("seconds_without_leader", round(time.monotonic() - start, 2))
        assert elected is not swarm_leader
        for node in others:
            assert {member.name for member in docker_api.members(node.docker)} == {n.name for n in cluster.nodes}
        services.create("after-the-leader", "--replicas=2", busybox_image, *SLEEP)
        services.wait_running("after-the-leader", 2)


@three_managers
def test_without_a_quorum_tasks_keep_running_and_with_one_manager_back_the_swarm_recovers(
    cluster: Cluster,
    services: Services,
    swarm_workers: list[Node],
    busybox_image: str,
    faults: Faults,
    record_property: Record,
) -> None:
    managers = cluster.swarm_managers
    majority = len(managers) // 2 + 1
    lost, survivor = managers[-majority:], managers[0]
    services.create("lasting", f"--replicas={len(swarm_workers)}", busybox_image, *SLEEP)
    services.wait_running("lasting", len(swarm_workers))
    alive = [node for node in swarm_workers if node not in lost]
    before = {node: services.containers(node, "lasting") for node in alive}
    with faults.power_off(*lost):
        cluster.until_true("the quorum to be lost", lambda: _refuses_changes(survivor), timeout=60, interval=0.5)
        assert {node: services.containers(node, "lasting") for node in alive} == before
        start = time.monotonic()
        lost[0].power_on()
        cluster.swarm_leader(among=[survivor, lost[0]], timeout=2 * ELECTION_BOUND)
        record_property("seconds_until_a_leader", round(time.monotonic() - start, 2))
        services.wait_running("lasting", len(swarm_workers))
    services.wait_running("lasting", len(swarm_workers))


# -- what the promises are made of -------------------------------------------------------------------------


def _refuses_changes(manager: Node) -> bool:
    result = manager.execute("timeout 15 docker service create --detach --no-resolve-image --name refused nothing")
    return result.status != 0 and "refused" not in result.stdout
