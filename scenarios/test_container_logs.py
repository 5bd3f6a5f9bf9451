"""What containers print is kept, and never fills the disk of their node."""

from fixtures.containers import DockerRun
from swarmer.cluster_node import Node

#: Bytes of a container's output that docker keeps at most, and what it writes beside them.
KEPT, BESIDE = 60_000_000, 100_000


def test_the_last_that_a_container_printed_is_kept(node: Node, docker_run: DockerRun) -> None:
    container = docker_run(
        node, "--name chatty", "sh -c 'yes $(seq 3000) | head -c 100000000; echo and this is the end'"
    )
    node.succeed("docker wait chatty", timeout=60)
    kept = int(node.succeed(f"du --summarize --bytes /var/lib/docker/containers/{container}").split()[0])
    assert KEPT / 2 < kept <= KEPT + BESIDE
    assert node.succeed("docker logs --tail 1 chatty").strip().endswith("and this is the end")
