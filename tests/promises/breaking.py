"""Scenarios that break things; run by the tests of the harness."""

import pytest

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError


def test_that_leaves_a_node_without_power(nodes: list[Node]) -> None:
    nodes[-1].power_off()


def test_that_gets_a_fresh_cluster(cluster: Cluster) -> None:
    cluster.wait_converged(timeout=1)


def test_that_makes_a_unit_fail(nodes: list[Node]) -> None:
    nodes[0].fail("systemd-run --quiet --wait --unit=doomed /bin/false")
    nodes[0].succeed("systemctl reset-failed doomed")


@pytest.mark.means_failure("doomed.service")
def test_that_makes_a_unit_fail_on_purpose(nodes: list[Node]) -> None:
    nodes[0].fail("systemd-run --quiet --wait --unit=doomed /bin/false")
    nodes[0].succeed("systemctl reset-failed doomed")


def test_that_fails_and_mentions_secrets(cluster: Cluster) -> None:
    credentials = cluster.credentials
    cluster.nodes[0].succeed(f"logger {credentials.management_token} {credentials.gossip_key}")
    raise SwarmerError("this one fails", hint="as it should")
