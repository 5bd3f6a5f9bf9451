"""Services are updated without a failed request, reach each other, and keep their secrets."""

import secrets
from collections.abc import Callable

import pytest

from swarmer.clients import docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.services import Services
from swarmer.wait import NotYet

SLEEP = ("sleep", "100000")

Record = Callable[[str, object], None]

two_workers = pytest.mark.needs_workers(2)


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
    (container,) = services.containers(chosen, "confidant")
    assert chosen.succeed(f"docker exec {container} cat /confided") == value
    assert _holders(cluster, value) == [chosen.name]
    services.docker("service", "rm", "confidant")
    cluster.until_true("no node to have it", lambda: _holders(cluster, value) == [], timeout=20)


@pytest.mark.smoke
@two_workers
def test_tasks_on_different_nodes_reach_each_other_by_name(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    services.make("network", "reach-net", "--driver=overlay", "reach-net")
    _reach_each_other(services, swarm_workers, busybox_image)


@pytest.mark.needs("encrypted-overlays")
@two_workers
def test_tasks_reach_each_other_through_an_encrypted_network(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    services.make("network", "reach-net", "--driver=overlay", "--opt=encrypted", "reach-net")
    _reach_each_other(services, swarm_workers, busybox_image)
    for node in swarm_workers:
        assert "proto esp" in node.succeed("ip xfrm state")


@pytest.mark.needs("container-limits")
def test_a_service_has_no_more_processor_time_and_memory_than_its_limits(
    services: Services, swarm_workers: list[Node], busybox_image: str
) -> None:
    node = swarm_workers[-1]
    where = f"--constraint=node.hostname=={node.name}"
    services.create("limited", where, "--limit-cpu=0.5", "--limit-memory=64M", busybox_image, *SLEEP)
    services.wait_running("limited", 1)
    (container,) = services.containers(node, "limited")
    read = f"docker exec {container} cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max"
    assert node.succeed(read).split() == ["50000", "100000", str(64 << 20)]


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


def _reach_each_other(services: Services, workers: list[Node], image: str) -> None:
    """One task on each node finds all of them by the name of the service, and reaches each through `reach-net`."""
    number = len(workers)
    _web(
        services,
        "reach",
        image,
        "here",
        "--network=reach-net",
        f"--replicas={number}",
        "--replicas-max-per-node=1",
    )
    services.wait_running("reach", lambda running: running == {node.name: 1 for node in workers})
    addresses = {address for task in services.tasks("reach") if task.running for address in task.addresses}
    assert len(addresses) == number
    for node in workers:
        (container,) = services.containers(node, "reach")
        node.wait_until_succeeds(
            f"test $(docker exec {container} nslookup -type=a reach | grep -c '^Address: ') = {number}"
        )
        for address in addresses:
            said = node.succeed(f"docker exec {container} wget -q -T 5 -O - http://{address}/")
            assert said.strip() == "here", (node, address)


def _serving(text: str) -> str:
    """A shell command that serves one page."""
    return f"mkdir -p /www && echo {text} > /www/index.html && exec httpd -f -p 80 -h /www"


def _page(text: str) -> str:
    """The same, as `--args` wants it."""
    return f'sh -c "{_serving(text)}"'


def _web(services: Services, name: str, image: str, text: str, *options: str) -> None:
    """A service that serves one page; a task is healthy once it answers, and is stopped after its successor is."""
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

    services.cluster.until(f"the update of {name} to be {state}", probe, timeout=90, retry_on=docker_api.Unavailable)


def _until_answered(client: Node, text: str, *, last: bool = False) -> None:
    """Wait until the probe has got this answer, or gets no other any more."""
    count = 20 if last else 1

    def probe() -> None:
        answers = client.succeed(f"docker logs --tail={count} rolling-probe").split()
        if answers != [text] * count:
            raise NotYet(f"{answers}")

    client.until(f"the answer {text}", probe, timeout=30)


def _holders(cluster: Cluster, value: str) -> list[str]:
    """The nodes on which docker has a text, on disk or in memory."""
    search = f"grep --recursive --binary-files=text --files-with-matches --devices=skip {value} /var/lib/docker /run"
    return [node.name for node in cluster.nodes if node.execute(f"{search} 2>/dev/null").stdout]
