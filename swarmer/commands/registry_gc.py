"""Garbage collection of a whole registry: on each of its nodes, side by side."""

import json
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from swarmer.cluster_node import Node
from swarmer.errors import NodeError

#: Seconds that something may lie around before it counts as garbage: longer than a push takes.
GRACE: Final = 3600.0

#: Seconds that a collection may take on one node.
_TIMEOUT: Final = 600.0


@dataclass(frozen=True)
class GcResult:
    """What was freed on one node; `problem` tells why it wasn't looked at."""

    node: str
    blobs: int = 0
    uploads: int = 0
    bytes: int = 0
    kept: int = 0
    problem: str = ""


def collect(nodes: Sequence[Node], *, grace: float = GRACE) -> list[GcResult]:
    """Collect on all nodes that are on; pushes and pulls go on meanwhile."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(lambda node: _on(node, grace), nodes))


def _on(node: Node, grace: float) -> GcResult:
    if not node.running:
        return GcResult(node.name, problem="is switched off")
    command = f"python3 -m swarmer.node.registry.garbage_collection --grace {shlex.quote(str(grace))}"
    try:
        done = node.execute(command, timeout=_TIMEOUT)
    except NodeError as error:
        return GcResult(node.name, problem=error.message)
    if done.status:
        return GcResult(node.name, problem=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed")
    return GcResult(node.name, **json.loads(done.stdout))
