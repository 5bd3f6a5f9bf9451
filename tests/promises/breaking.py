"""Scenarios that break things; run by the tests of the harness."""

from pathlib import Path

import pytest

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node


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


def test_that_leaves_a_unit_that_ends_well_again_and_again(nodes: list[Node]) -> None:
    options = "--quiet --unit=looping --property=Restart=always --property=RestartSec=100ms"
    nodes[0].succeed(f"systemd-run {options} --property=StartLimitIntervalSec=0 /bin/true")
    nodes[0].wait_until_succeeds("test $(systemctl show --property=NRestarts --value looping) -ge 4")
    nodes[0].succeed("systemctl stop looping")


def test_that_fails_and_mentions_secrets(cluster: Cluster) -> None:
    secrets = f"{cluster.credentials.management_token} {cluster.credentials.gossip_key}"
    Path("secrets").write_text(secrets)
    key = "-----BEGIN EC PRIVATE KEY-----\nof-the-key\n-----END EC PRIVATE KEY-----\n"
    cluster.nodes[0].succeed("logger", input=key)
    cluster.nodes[0].succeed(f"logger {secrets}")
    cluster.nodes[0].fail(f"true {cluster.credentials.management_token}")
