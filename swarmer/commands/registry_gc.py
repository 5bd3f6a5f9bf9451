"""Garbage collection of a whole registry, on all its nodes in parallel."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import NodeError
from swarmer.node.registry.garbage_collection import GRACE, Freed
from swarmer.pool import Pool

#: Seconds that a collection may take on one node.
_TIMEOUT: Final = 600.0

_PROGRAM: Final = "python3 -m swarmer.node.registry.garbage_collection"


@dataclass(frozen=True)
class GcResult(Freed):
    """The result on one node; `problem` is why nothing was collected, empty if all went well."""

    node: str = ""
    problem: str = ""


def collect(nodes: Sequence[Node], *, grace: float = GRACE) -> list[GcResult]:
    """Collect on all nodes that are switched on; pushes and pulls may continue meanwhile."""
    with Pool(len(nodes)) as pool:
        return pool.map(lambda node: _on(node, grace), nodes)


def remove_untagged(cluster: Cluster, *, grace: float = GRACE) -> int:
    """Remove the manifests that no tag needs, and return their number; `collect` then frees their space.

    Raises:
        NodeError: they can't be removed now; some may be gone.
    """
    leader = cluster.registry_leader()
    done = leader.execute(f"{_PROGRAM} --untagged --grace {shlex.quote(str(grace))}", timeout=_TIMEOUT)
    if done.status:
        reported = done.stderr.strip().splitlines()
        reason = reported[-1] if reported else "failed"
        raise NodeError(f"manifests without a tag were not removed: {reason}", hint="run it again")
    return int(json.loads(done.stdout)["manifests"])


def _on(node: Node, grace: float) -> GcResult:
    if not node.running:
        return GcResult(node=node.name, problem="is switched off")
    command = f"{_PROGRAM} --grace {shlex.quote(str(grace))}"
    try:
        done = node.execute(command, timeout=_TIMEOUT)
    except NodeError as error:
        return GcResult(node=node.name, problem=error.message)
    if done.status:
        reported = done.stderr.strip().splitlines()
        return GcResult(node=node.name, problem=reported[-1] if reported else "failed")
    return GcResult(node=node.name, **json.loads(done.stdout))
