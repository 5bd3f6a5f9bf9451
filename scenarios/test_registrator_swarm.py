"""Services of the swarm are announced by the node of the task, or by all managers if every node forwards the port."""

import json
from typing import Any

import pytest

from fixtures.containers import DockerRun
from fixtures.registrator import SOON, Announced, Forwarding, StartRegistrator
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.ports import SWARM
from swarmer.services import Services
from swarmer.spec import SwarmRole
from swarmer.wait import NotYet

SLEEP = ("sleep", "1000000")

#: Seconds for a task to start on its node, on a busy machine.
TASK = 20.0

#: Seconds until the managers forget the labels of a service that has ended: docker has to have missed it for 60 s.
FORGOTTEN = 90.0


@pytest.fixture
def manager(swarm_managers: list[Node]) -> Node:
    """A node that manages the swarm and runs tasks."""
    return next(node for node in swarm_managers if node.server.swarm is SwarmRole.BOTH)


@pytest.mark.smoke
def test_a_port_of_the_host_is_announced_by_the_node_of_the_task(
    cluster: Cluster, announced: Announced, services: Services, manager: Node, busybox_image: str
) -> None:
    services.create(
        "direct",
        "--publish=mode=host,target=80,published=8090",
        f"--constraint=node.hostname=={manager.name}",
        "--label=SERVICE_TAGS=of-the-service",
        "--container-label=SERVICE_TIER=front",
        "--label=com.docker.stack.namespace=shop",
        busybox_image,
        *SLEEP,
    )
    service = _only(announced, manager, "direct", timeout=TASK)
    assert (service["Address"], service["Port"]) == (str(manager.ip), 8090)
    assert service["Tags"] == ["of-the-service"]
    assert service["Meta"].keys() == {"registrator", "registrator-container", "tier"}
    for other in cluster.nodes:
        assert other is manager or not announced.on(other)


def test_a_task_on_a_worker_is_announced_with_the_labels_of_its_service(
    cluster: Cluster, swarm_agent: Node, announced: Announced, services: Services, busybox_image: str
) -> None:
    services.create(
        "front",
        "--publish=mode=host,target=80,published=8090",
        f"--constraint=node.hostname=={swarm_agent.name}",
        "--label=SERVICE_NAME=shop",
        "--label=SERVICE_TAGS=blue",
        busybox_image,
        *SLEEP,
    )
    service = _only(announced, swarm_agent, "shop", timeout=TASK)
    assert service["Tags"] == ["blue"]
    services.update("front", "--label-add=SERVICE_TAGS=green")
    cluster.until_equal("its tags", lambda: _only(announced, swarm_agent, "shop")["Tags"], ["green"], timeout=SOON)
    shared = _shared(cluster, services, "front")
    assert shared
    services.docker("service", "rm", "front")
    announced.wait_exactly(swarm_agent, set(), timeout=TASK)
    cluster.until_equal(
        "the end of what was shared",
        lambda: cluster.consul.kv.get(shared["Key"])[1],
        None,
        timeout=FORGOTTEN,
        interval=1,
    )


def test_with_internal_a_task_is_announced_at_its_address_in_its_overlay_network(
    announced: Announced,
    services: Services,
    start_registrator: StartRegistrator,
    manager: Node,
    busybox_image: str,
) -> None:
    services.make("network", "inside-net", "--driver=overlay", "inside-net")
    services.create(
        "inside",
        "--network=inside-net",
        "--publish=mode=host,target=80,published=8090",
        f"--constraint=node.hostname=={manager.name}",
        busybox_image,
        *SLEEP,
    )
    outside = _only(announced, manager, "inside", timeout=TASK)
    assert (outside["Address"], outside["Port"]) == (str(manager.ip), 8090)
    service = _only(announced, manager, "inside", by=start_registrator(manager, "-internal"))
    (task,) = (task for task in services.tasks("inside") if task.running)
    assert ((service["Address"],), service["Port"]) == (task.addresses, 80)


def test_a_port_that_every_node_forwards_is_announced_by_all_managers(
    cluster: Cluster,
    announced: Announced,
    services: Services,
    swarm_managers: list[Node],
    busybox_image: str,
    forwarding: Forwarding,
) -> None:
    forwarding(swarm_managers, "8091/tcp", "8092/udp")
    services.create(
        "mesh",
        "--publish=8091:80",
        "--publish=8092:53/udp",
        "--label=SERVICE_TAGS=edge",
        "--label=SERVICE_80_NAME=site",
        busybox_image,
        *SLEEP,
    )
    for node in swarm_managers:
        tcp = announced.wait(node, f"{node.name}:mesh@mesh:8091", timeout=TASK)
        assert (tcp["Service"], tcp["Address"], tcp["Port"], tcp["Tags"]) == ("site", str(node.ip), 8091, ["edge"])
        udp = announced.wait(node, f"{node.name}:mesh@mesh:8092:udp")
        assert (udp["Service"], udp["Port"], udp["Tags"]) == ("mesh-53", 8092, ["edge", "udp"])
    for node in cluster.nodes:
        assert node in swarm_managers or not announced.on(node)
    name = f"site.service.{cluster.spec.domain}"
    everybody = {str(node.ip) for node in swarm_managers}
    cluster.until_equal(name, lambda: set(swarm_managers[0].ask(name).records), everybody, timeout=SOON)


def test_a_port_that_docker_does_not_forward_is_not_announced_and_the_journal_has_the_reason(
    cluster: Cluster, announced: Announced, services: Services, swarm_managers: list[Node], busybox_image: str
) -> None:
    if any(node.execute("test -e /proc/net/ip_vs").status == 0 for node in swarm_managers):
        pytest.skip("needs a kernel without IPVS")
    services.create("closed", "--publish=8093:80", busybox_image, *SLEEP)
    services.wait_running("closed", 1)
    for node in swarm_managers:
        node.wait_until_succeeds("journalctl --unit swarmer-registrator --grep 'port 8093/tcp .* needs IPVS'")
    for node in cluster.nodes:
        assert not announced.on(node)


def test_placeholders_in_variables_are_filled_in_for_ports_of_the_mesh_too(
    announced: Announced,
    services: Services,
    swarm_managers: list[Node],
    manager: Node,
    busybox_image: str,
    forwarding: Forwarding,
) -> None:
    forwarding(swarm_managers, "8091/tcp")
    variables = (
        "--env=SERVICE_NAME={{.Service.Name}}-api",
        "--env=SERVICE_TAGS=slot{{.Task.Slot}},{{.Node.Hostname}},edge",
        "--env=SERVICE_SLOT={{.Task.Slot}}",
    )
    services.create("mesh", "--publish=8091:80", *variables, busybox_image, *SLEEP)
    for node in swarm_managers:
        service = announced.wait(node, f"{node.name}:mesh@mesh:8091", timeout=TASK)
        assert (service["Service"], service["Tags"]) == ("mesh-api", ["edge"])
        assert "slot" not in service["Meta"]
    services.docker("service", "rm", "mesh")
    for node in swarm_managers:
        announced.wait_exactly(node, set(), timeout=TASK)
    services.create(
        "direct",
        "--publish=mode=host,target=80,published=8090",
        f"--constraint=node.hostname=={manager.name}",
        *variables,
        busybox_image,
        *SLEEP,
    )
    service = _only(announced, manager, "direct-api", timeout=TASK)
    assert service["Tags"] == ["slot1", manager.name, "edge"]


def test_a_service_without_a_running_task_is_not_announced(
    announced: Announced,
    services: Services,
    swarm_managers: list[Node],
    busybox_image: str,
    forwarding: Forwarding,
) -> None:
    forwarding(swarm_managers, "8091/tcp")
    services.create("scaled", "--publish=8091:80", busybox_image, *SLEEP)
    for replicas in (1, 0, 1):
        services.update("scaled", f"--replicas={replicas}")
        for node in swarm_managers:
            wanted = {f"{node.name}:scaled@mesh:8091"} if replicas else set()
            announced.wait_exactly(node, wanted, timeout=TASK)


@pytest.mark.needs_managers(3)
def test_managers_without_a_quorum_keep_announcing(
    cluster: Cluster,
    announced: Announced,
    services: Services,
    swarm_managers: list[Node],
    busybox_image: str,
    run_container: DockerRun,
    faults: Faults,
    forwarding: Forwarding,
) -> None:
    left = swarm_managers[-1]
    forwarding(swarm_managers, "8091/tcp")
    services.create("mesh", "--publish=8091:80", "--label=SERVICE_TAGS=edge", "--mode=global", busybox_image, *SLEEP)
    for node in swarm_managers:
        announced.wait(node, f"{node.name}:mesh@mesh:8091", timeout=TASK)
    shared = _shared(cluster, services, "mesh")
    assert shared
    with faults.block(*(node for node in swarm_managers if node is not left), port=SWARM.number):
        left.wait_until_succeeds("docker node ls 2>&1 | grep -q 'leader\\|deadline'", timeout=60)
        # A new one knows only what consul tells it.
        left.succeed("systemctl restart swarmer-registrator")
        run_container(left, "--name alone --publish 8099:80")
        announced.wait(left, f"{left.name}:alone:80")
        assert f"{left.name}:mesh@mesh:8091" in announced.on(left)
        _, entry = cluster.consul.kv.get(shared["Key"], consistency="consistent")
        assert entry == shared


@pytest.mark.needs_managers(3)
def test_a_manager_whose_docker_hangs_does_not_overwrite_shared_labels(
    cluster: Cluster,
    services: Services,
    swarm_leader: Node,
    swarm_managers: list[Node],
    busybox_image: str,
    faults: Faults,
) -> None:
    deaf = next(node for node in swarm_managers if node is not swarm_leader)
    services.create("front", "--label=SERVICE_TAGS=blue", "--replicas=0", busybox_image, *SLEEP)

    def labels() -> Any:
        entry = _shared(cluster, services, "front")
        return json.loads(entry["Value"]) if entry else None

    cluster.until_equal("the shared labels", labels, {"SERVICE_TAGS": "blue"}, timeout=TASK)
    with faults.stop(deaf, unit="docker"):
        services.update("front", "--label-add=SERVICE_TAGS=green")
        cluster.until_equal("the shared labels", labels, {"SERVICE_TAGS": "green"}, timeout=TASK)
        entry = _shared(cluster, services, "front")
        # Each registrator has seen them now, and compares once per second at least what is with what is to be.
        cluster.pause(3)
        assert _shared(cluster, services, "front") == entry


def _only(announced: Announced, node: Node, name: str, *, by: str = "", timeout: float = SOON) -> dict[str, Any]:
    """The one service that a registrator announces on a node, once it has the name."""

    def probe() -> dict[str, Any]:
        found = list(announced.on(node, by=by).values())
        if [one["Service"] for one in found] != [name]:
            raise NotYet(f"announced are {[one['Service'] for one in found]}")
        return dict(found[0])

    return node.until(f"{name} on {node.name}", probe, timeout=timeout)


def _shared(cluster: Cluster, services: Services, name: str) -> dict[str, Any] | None:
    """The entry in consul by which the managers share the labels of a service."""
    _, entry = cluster.consul.kv.get(f"registrator/swarm/{services.inspect(name)['ID']}", consistency="consistent")
    return dict(entry) if entry else None
