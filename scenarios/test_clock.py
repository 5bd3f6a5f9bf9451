"""Nodes whose clocks are wrong stay members of the cluster, and keep what it promised."""

from collections.abc import Callable

import pytest

from swarmer.clients.registry_client import Image, RegistryClient
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults, clock_error

pytestmark = pytest.mark.needs("clock")

HOUR = 3600.0


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_node_with_a_wrong_clock_stays_of_one_mind_with_the_others(
    cluster: Cluster, nodes: list[Node], registry_at: Callable[[Node], RegistryClient], faults: Faults, ahead: float
) -> None:
    node = nodes[-1]
    with faults.clock(node, ahead=ahead):
        assert abs(clock_error(node) - ahead) < 60
        assert all(abs(clock_error(peer)) < 60 for peer in nodes if peer is not node)
        cluster.wait_converged()
        image = Image.random()
        for peer in cluster.registry_nodes:
            registry_at(peer).push("clock", f"{peer.name}-{ahead:.0f}", image)
        assert node.consul.kv.put(f"written/{ahead}", node.name)
        for reader in nodes:
            _, entry = reader.consul.kv.get(f"written/{ahead}", consistency="consistent")
            assert entry["Value"].decode() == node.name
    assert abs(clock_error(node)) < 60


def test_a_session_lives_as_long_as_was_promised_whatever_a_clock_says(
    cluster: Cluster, consul_leader: Node, faults: Faults
) -> None:
    api = consul_leader.consul
    session = api.session.create(name="clock", ttl=3600, lock_delay=0)
    try:
        with faults.clock(consul_leader, ahead=2 * HOUR):
            # Not only at once: consul looks at its sessions again and again.
            for _ in range(5):
                assert api.session.info(session)[1], "the session ended by a clock that was put forward"
                cluster.pause(1)
    finally:
        cluster.consul.session.destroy(session)
