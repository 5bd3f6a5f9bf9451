"""Scenarios that pass at the second try; run by the tests of the harness."""

import pytest

from swarmer.cluster import Cluster

TRIES: list[str] = []


@pytest.mark.parametrize("number", [1, 2])
def test_that_fails_once(cluster: Cluster, number: int) -> None:
    TRIES.append(f"{number}")
    assert cluster.nodes
    assert TRIES.count(f"{number}") == 2
