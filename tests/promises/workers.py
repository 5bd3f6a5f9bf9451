"""Notes which cluster it ran on; run by the tests of the harness, by several workers at once."""

from pathlib import Path

from swarmer.cluster import Cluster


def test_on_a_cluster_of_its_own(cluster: Cluster) -> None:
    with Path("clusters").open("a") as file:
        file.write(f"{cluster.name} {cluster.spec.admin_network}\n")
