"""Consul and the swarm bear links that are slow, that lose packets, and that reorder them."""

import pytest

from swarmer import netem
from swarmer.clients.consul_api import Unavailable
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.netem import Link
from swarmer.wait import NotYet

pytestmark = [pytest.mark.needs("netem"), pytest.mark.needs_servers(3)]


def _write(node: Node, key: str, value: str) -> None:
    """Write until it is acknowledged."""

    def probe() -> None:
        if not node.consul.kv.put(key, value):
            raise NotYet("refused")

    node.until(f"{node.name} to acknowledge {key}", probe, timeout=30, retry_on=Unavailable)


def _read(node: Node, key: str) -> str:
    def probe() -> str:
        _, entry = node.consul.kv.get(key, consistency="consistent")
        if not entry:
            raise NotYet("nothing there")
        value: bytes = entry["Value"]
        return value.decode()

    return node.until(f"{node.name} to read {key}", probe, timeout=30, retry_on=Unavailable)


def test_a_bad_link_is_as_bad_as_was_asked_and_spares_the_harness(nodes: list[Node], faults: Faults) -> None:
    left, right = nodes[:2]
    usual = netem.round_trip(left, right)
    with faults.bad_link([left], [right], Link(delay=0.15)):
        assert netem.round_trip(left, right) > usual + 0.28
        third = nodes[2] if len(nodes) > 2 else None
        if third:
            assert netem.round_trip(left, third) < 0.15 + usual
    assert netem.round_trip(left, right) < usual + 0.14


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(Link(delay=0.05, jitter=0.02), id="delay"),
        pytest.param(Link(loss=0.1), id="loss"),
        pytest.param(Link(delay=0.03, jitter=0.03, reordered=0.3), id="reordering"),
    ],
)
def test_writes_are_acknowledged_and_kept_over_bad_links(
    cluster: Cluster, consul_leader: Node, consul_followers: list[Node], faults: Faults, link: Link
) -> None:
    keys = [f"bad-links/{number}" for number in range(20)]
    with faults.bad_link([consul_leader], consul_followers, link):
        for number, key in enumerate(keys):
            _write(consul_followers[number % len(consul_followers)], key, str(number))
    for node in cluster.consul_servers:
        assert [_read(node, key) for key in keys] == [str(number) for number in range(len(keys))]


def test_a_link_that_loses_half_of_all_packets_costs_no_acknowledged_write(
    cluster: Cluster, consul_leader: Node, consul_followers: list[Node], faults: Faults
) -> None:
    acknowledged: dict[str, str] = {}
    with faults.bad_link([consul_leader], consul_followers, Link(loss=0.5)):
        assert netem.lost(consul_leader, consul_followers[0]) > 0.3  # on the way there, or back
        for number in range(50):
            if len(acknowledged) == 5:
                break
            key = f"half-lost/{number}"
            try:
                if consul_followers[0].consul.kv.put(key, str(number)):
                    acknowledged[key] = str(number)
            except Unavailable:
                continue
    assert acknowledged
    for key, value in acknowledged.items():
        assert _read(cluster.consul_servers[0], key) == value
