"""What the nodes' journals complained about: failed units, processes killed for memory, panics."""

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarmer.errors import NodeError

if TYPE_CHECKING:
    from swarmer.cluster import Cluster
    from swarmer.cluster_node import Node

# Message identifiers of systemd, as `journalctl --list-catalog` shows them.
_UNIT_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
_OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"

#: What a dying kernel or Go program prints.
_PANIC = r"^(panic: |fatal error: |Kernel panic|Out of memory: |Oops: )"


@dataclass(frozen=True)
class Complaint:
    """One line of a journal that no scenario may leave unexplained."""

    node: str
    unit: str
    message: str

    def __str__(self) -> str:
        return f"{self.node}: {self.unit}: {self.message}" if self.unit else f"{self.node}: {self.message}"


class Audit:
    """Reads, after each scenario, what the journals of all nodes have got since the last look."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self._cursors: dict[str, str] = {}

    @classmethod
    def from_now_on(cls, cluster: "Cluster") -> "Audit":
        """One that doesn't mind what happened before."""
        audit = cls(cluster)
        audit.complaints()
        return audit

    def forget(self) -> None:
        """Begin anew, for fresh nodes."""
        self._cursors.clear()

    def complaints(self) -> list[Complaint]:
        """New complaints of every node that can be reached."""
        nodes = [node for node in self.cluster.nodes if node.running]
        with ThreadPoolExecutor(max(len(nodes), 1)) as pool:
            return [complaint for found in pool.map(self._of_node, nodes) for complaint in found]

    def _of_node(self, node: "Node") -> list[Complaint]:
        after = f"--after-cursor={shlex.quote(self._cursors[node.name])}" if node.name in self._cursors else ""
        query = f"journalctl --quiet --no-pager --output=json {after}"
        try:
            result = node.execute(
                f"{query} MESSAGE_ID={_UNIT_FAILED} + MESSAGE_ID={_OUT_OF_MEMORY};"
                f"{query} --grep={shlex.quote(_PANIC)}; journalctl --quiet --lines=1 --output=json"
            )
        except NodeError:
            return []
        *entries, last = [json.loads(line) for line in result.stdout.splitlines()] or [{}]
        if "__CURSOR" in last:
            self._cursors[node.name] = last["__CURSOR"]
        return [
            Complaint(
                node.name,
                entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or "",
                str(entry.get("MESSAGE", "")),
            )
            for entry in entries
        ]
