"""A promise that any cluster keeps; run by the tests of the harness."""

from swarmer.cluster_node import Node


def test_every_node_answers(nodes: list[Node]) -> None:
    for node in nodes:
        assert node.succeed("hostname").strip() == node.name
