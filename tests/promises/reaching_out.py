"""What a node with `internet: true` reaches; run by the tests of the network, which make the outside."""

from swarmer.cluster import Cluster

OUTSIDE = "http://www.example.com/outside"


def test_a_node_reaches_what_is_outside(cluster: Cluster) -> None:
    assert cluster.nodes[0].succeed(f"curl -sSf --max-time 5 {OUTSIDE}") == "the world\n"


def test_a_container_reaches_what_is_outside(cluster: Cluster, busybox_image: str) -> None:
    command = f"docker run --rm {busybox_image} wget -q -T 5 -O - {OUTSIDE}"
    assert cluster.nodes[0].succeed(command) == "the world\n"
