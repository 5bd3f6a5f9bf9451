"""The swarm runs what it was told to, where it was told to, and goes on doing so whatever happens to its nodes."""

import secrets
import time
from collections.abc import Callable

import pytest

from swarmer import docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.services import Services
from swarmer.wait import NotYet, until, until_true

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


@pytest.mark.usefixtures("nodes")
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
    until_true(
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
    assert seconds < RESCHEDULING_BOUND
    # What the lost node ran is not run twice when it returns.
    services.wait_running("moving", number)
    until_true("the former tasks to be gone", lambda: _containers(lost, "moving") == [], timeout=20)


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
def test_without_a_quorum_tasks_run_on_and_with_one_manager_back_the_swarm_is_whole_again(
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
    before = {node: _containers(node, "lasting") for node in alive}
    with faults.power_off(*lost):
        until_true("the quorum to be lost", lambda: _refuses_changes(survivor), timeout=60, interval=0.5)
        assert {node: _containers(node, "lasting") for node in alive} == before
        start = time.monotonic()
        lost[0].power_on()
        cluster.swarm_leader(among=[survivor, lost[0]], timeout=2 * ELECTION_BOUND)
        record_property("seconds_until_a_leader", round(time.monotonic() - start, 2))
        services.wait_running("lasting", len(swarm_workers))
    services.wait_running("lasting", len(swarm_workers))


# -- updates -----------------------------------------------------------------------------------------------


def test_a_rolling_update_fails_no_request(
    services: Services, swarm_workers: list[Node], busybox_image: str, record_property: Record
) -> None:
    services.make("network", "rolling-net", "--driver=overlay", "--attachable", "rolling-net")
    _web(services, "rolling", busybox_image, "first", "--network=rolling-net", "--replicas=2")
    services.wait_running("rolling", 2)
    client = swarm_workers[0]
    probe = "while :; do said=$(wget -q -T 2 -O - http://rolling/) || said=FAILED; echo ${said:-EMPTY}; done"
    client.succeed(f"docker run --detach --name rolling-probe --network rolling-net {busybox_image} sh -c '{probe}'")
    try:
        _until_answered(client, "first")
        services.update("rolling", "--args", _page("second"))
        _until_update(services, "rolling", "completed")
        services.wait_running("rolling", 2)
        _until_answered(client, "second", last=True)
        answers = client.succeed("docker logs rolling-probe").split()
    finally:
        client.succeed("docker rm --force rolling-probe")
    record_property("requests", len(answers))
    assert set(answers) == {"first", "second"}


def test_an_update_whose_health_check_fails_is_rolled_back(services: Services, busybox_image: str) -> None:
    _web(services, "rolled", busybox_image, "first", "--replicas=2", "--update-failure-action=rollback")
    services.wait_running("rolled", 2)
    services.update("rolled", "--health-cmd=false", "--args", _page("second"))
    _until_update(services, "rolled", "rollback_completed")
    services.wait_running("rolled", 2)
    container = services.inspect("rolled")["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert container["Args"][-1] == _page("first").split("sh -c ")[1].strip('"')


# -- secrets, configs, networks ----------------------------------------------------------------------------


@two_workers
@pytest.mark.parametrize("kind", ["secret", "config"])
def test_secrets_and_configs_are_on_the_nodes_of_their_tasks_only(
    services: Services, cluster: Cluster, swarm_workers: list[Node], busybox_image: str, kind: str
) -> None:
    chosen = swarm_workers[-1]
    value = secrets.token_hex(16)
    services.make(kind, "confided", "confided", "-", input=value)
    assert _holders(cluster, value) == []
    where = f"--constraint=node.hostname=={chosen.name}"
    services.create("confidant", where, f"--{kind}=source=confided,target=/confided", busybox_image, *SLEEP)
    services.wait_running("confidant", 1)
    (container,) = _containers(chosen, "confidant")
    assert chosen.succeed(f"docker exec {container} cat /confided") == value
    assert _holders(cluster, value) == [chosen.name]
    services.docker("service", "rm", "confidant")
    until_true("nobody to have it", lambda: _holders(cluster, value) == [], timeout=20)


@two_workers
def test_tasks_on_different_nodes_reach_each_other_by_name(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    number = len(swarm_workers)
    services.make("network", "reach-net", "--driver=overlay", "reach-net")
    _web(
        services,
        "reach",
        busybox_image,
        "here",
        "--network=reach-net",
        f"--replicas={number}",
        "--replicas-max-per-node=1",
    )
    services.wait_running("reach", lambda running: running == {node.name: 1 for node in swarm_workers})
    addresses = {address for task in services.tasks("reach") if task.running for address in task.addresses}
    assert len(addresses) == number
    for node in swarm_workers:
        (container,) = _containers(node, "reach")
        node.wait_until_succeeds(
            f"test $(docker exec {container} nslookup -type=a reach | grep -c '^Address: ') = {number}"
        )
        for address in addresses:
            said = node.succeed(f"docker exec {container} wget -q -T 5 -O - http://{address}/")
            assert said.strip() == "here", (node, address)


@pytest.mark.needs("ipvs")
def test_every_node_forwards_a_published_port(services: Services, cluster: Cluster, busybox_image: str) -> None:
    services.create("meshed", "--publish=8080:80", busybox_image, "sh", "-c", _serving("meshed"))
    services.wait_running("meshed", 1)
    for node in cluster.nodes:
        for other in cluster.nodes:
            assert node.wait_until_succeeds(f"curl -sS --max-time 5 http://{other.ip}:8080/").strip() == "meshed"


@pytest.mark.needs("ipvs")
def test_a_service_has_one_address_for_all_its_tasks(services: Services, busybox_image: str) -> None:
    services.make("network", "vip-net", "--driver=overlay", "--attachable", "vip-net")
    services.create(
        "vip",
        "--network=vip-net",
        "--replicas=3",
        busybox_image,
        "sh",
        "-c",
        "hostname > /index.html; exec httpd -f -p 80 -h /",
    )
    services.wait_running("vip", 3)
    (address,) = {entry["Addr"].split("/")[0] for entry in services.inspect("vip")["Endpoint"]["VirtualIPs"]}
    leader = services.cluster.swarm_leader()
    asking = f"docker run --rm --network vip-net {busybox_image} sh -c"
    assert address in leader.succeed(f"{asking} 'nslookup -type=a vip'")
    ask = "for i in 1 2 3 4 5 6; do wget -q -T 5 -O - http://vip/; done"
    assert len(set(leader.succeed(f"{asking} '{ask}'").split())) == 3


# -- what the promises are made of -------------------------------------------------------------------------


def _serving(text: str) -> str:
    """A shell command that serves one page."""
    return f"mkdir -p /www && echo {text} > /www/index.html && exec httpd -f -p 80 -h /www"


def _page(text: str) -> str:
    """The same, as `--args` wants it."""
    return f'sh -c "{_serving(text)}"'


def _web(services: Services, name: str, image: str, text: str, *options: str) -> None:
    """A service that serves one page; a task counts once it answers, and its successor is there before it goes."""
    services.create(
        name,
        *("--endpoint-mode=dnsrr", "--update-order=start-first", "--update-monitor=3s", "--update-parallelism=1"),
        *("--health-cmd=wget -q -O /dev/null http://127.0.0.1/", "--health-interval=500ms", "--health-retries=2"),
        *options,
        image,
        *("sh", "-c", _serving(text)),
    )


def _until_update(services: Services, name: str, state: str) -> None:
    def probe() -> None:
        status = services.inspect(name).get("UpdateStatus") or {}
        if status.get("State") != state:
            raise NotYet(f"{status.get('State')}: {status.get('Message')}")

    until(f"the update of {name} to be {state}", probe, timeout=90, pardon=docker_api.Unavailable)


def _until_answered(client: Node, text: str, *, last: bool = False) -> None:
    """Until the probe got this answer, or gets no other any more."""
    count = 20 if last else 1

    def probe() -> None:
        answers = client.succeed(f"docker logs --tail={count} rolling-probe").split()
        if answers != [text] * count:
            raise NotYet(f"{answers}")

    until(f"the answer {text}", probe, timeout=30)


def _containers(node: Node, service: str) -> list[str]:
    """The running containers of a service on a node."""
    return node.succeed(f"docker ps --quiet --filter label=com.docker.swarm.service.name={service}").split()


def _holders(cluster: Cluster, value: str) -> list[str]:
    """The nodes that hold a text anywhere docker keeps things, on disk or in memory."""
    search = f"grep --recursive --binary-files=text --files-with-matches --devices=skip {value} /var/lib/docker /run"
    return [node.name for node in cluster.nodes if node.execute(f"{search} 2>/dev/null").stdout]


def _refuses_changes(manager: Node) -> bool:
    result = manager.execute("timeout 15 docker service create --detach --no-resolve-image --name refused nothing")
    return result.status != 0 and "refused" not in result.stdout
