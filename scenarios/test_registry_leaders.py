"""The leaders of registry and consul are on two nodes where possible, so that no failure takes both."""

from collections.abc import Callable

import pytest

from fixtures.registry_load import Pushing
from swarmer.clients.registry_client import Image, RegistryClient
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.wait import NotYet

pytestmark = [pytest.mark.needs_servers(3), pytest.mark.usefixtures("images_are_forgotten")]


@pytest.fixture
def leader_of_both(cluster: Cluster, faults: Faults) -> Node:
    """The node that leads the registry, once consul has elected it too."""

    def probe() -> Node:
        leader = cluster.consul_leader()
        if leader is cluster.registry_leader():
            return leader
        with faults.kill(leader, "consul"):
            pass
        raise NotYet(f"{leader.name} leads consul")

    return cluster.until("consul's leader to be the registry's", probe, timeout=120)


def test_the_next_leader_of_the_registry_is_not_consuls(cluster: Cluster, leader_of_both: Node, faults: Faults) -> None:
    with faults.power_off(leader_of_both):

        def probe() -> Node:
            leader = cluster.registry_leader()
            if leader is leader_of_both:
                raise NotYet(f"{leader.name} leads the registry")
            return leader

        assert cluster.until("another leader of the registry", probe, timeout=15) is not cluster.consul_leader()


def test_both_are_lost_at_once_and_no_acknowledged_image(
    leader_of_both: Node,
    clients: list[RegistryClient],
    registry_at: Callable[[Node], RegistryClient],
    registry_nodes: list[Node],
    faults: Faults,
    record_property: Callable[[str, object], None],
) -> None:
    image = Image.random()
    registry_at(leader_of_both).push("both", "before", image)
    with Pushing(clients, "both") as pushing:
        pushing.wait_for_more()
        with faults.power_off(leader_of_both):
            seconds = pushing.wait_for_more(timeout=15)
            for node in registry_nodes:
                if node is not leader_of_both:
                    assert registry_at(node).pull("both", "before") == image
        pushing.wait_for_more()
    record_property("seconds_until_next_push", round(seconds, 3))
    assert pushing.improper == []
    for push in pushing.acknowledged:
        assert clients[0].pull(push.repository, push.tag) == push.image
