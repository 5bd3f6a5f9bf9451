"""What no scenario may leave unexplained in a node's journal: failed units, crash loops, killed processes, panics."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.pool import Pool

# Message identifiers of systemd, as `journalctl --list-catalog` shows them.
_UNIT_FAILED: Final = "d9b373ed55a64feb8242e02dbe79a49c"
_OUT_OF_MEMORY: Final = "fe6faa94e7774663a0da52717891d8ef"
_RESTART_SCHEDULED: Final = "5eb03494b6584870a536b337290809b3"

#: How a dying kernel or Go program begins its last message.
_PANIC: Final = r"^(panic: |fatal error: |Kernel panic|Out of memory: |Oops: )"

#: Restarts of a unit between two looks that are a crash loop, although each of its processes ended with status 0.
_CRASH_LOOP: Final = 3

#: Fields of a journal entry, as of systemd.journal-fields(7).
_Entry = dict[str, Any]


@dataclass(frozen=True)
class Complaint:
    """Something in the journal of a node that no scenario may leave unexplained.

    Attributes:
        unit: the systemd unit that it is about; empty if it is about none.
    """

    node: str
    unit: str
    message: str

    def __str__(self) -> str:
        return f"{self.node}: {self.unit}: {self.message}" if self.unit else f"{self.node}: {self.message}"


class Audit:
    """Reads, after each scenario, the entries that the journals of all nodes have got since the last look."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._cursors: dict[str, str] = {}
        self._seen: dict[str, set[str]] = {}

    @classmethod
    def from_now_on(cls, cluster: Cluster) -> "Audit":
        """An audit that ignores what is in the journals already."""
        audit = cls(cluster)
        audit.complaints()
        return audit

    def forget(self) -> None:
        """Start from the beginning of the journals, for new nodes."""
        self._cursors.clear()
        self._seen.clear()

    def complaints(self) -> list[Complaint]:
        """New complaints about every node that is switched on. A journal that can't be read is a complaint, too."""
        nodes = [node for node in self.cluster.nodes if node.running]
        with Pool(len(nodes)) as pool:
            return [complaint for found in pool.map(self._complaints_of, nodes) for complaint in found]

    def _complaints_of(self, node: Node) -> list[Complaint]:
        try:
            entries = self._new_entries(node)
        except (SwarmerError, ValueError) as error:
            return [Complaint(node.name, "", f"its journal can't be read: {error}")]
        return list(_complaints(node.name, entries))

    def _new_entries(self, node: Node) -> list[_Entry]:
        """The entries that may be complaints and were not returned before.

        Raises:
            NodeError: the node does not answer.
            ValueError: it has no journal.
        """
        start = f"--after-cursor={shlex.quote(self._cursors[node.name])}" if node.name in self._cursors else ""
        query = f"journalctl --quiet --no-pager --output=json {start}"
        identifiers = " + ".join(f"MESSAGE_ID={id}" for id in (_UNIT_FAILED, _OUT_OF_MEMORY, _RESTART_SCHEDULED))
        # The cursor comes first: an entry that is written after it, and before the queries end, is read twice. If the
        # cursor came last, such an entry would be missed.
        result = node.execute(
            "journalctl --quiet --no-pager --lines=1 --output=json || exit;"
            f"{query} {identifiers}; {query} --grep={shlex.quote(_PANIC)}"
        )
        lines = result.stdout.splitlines()
        if not lines:
            raise ValueError(result.stderr.strip() or "it is empty")
        newest, *found = map(json.loads, lines)
        entries = {entry["__CURSOR"]: entry for entry in found}
        seen = self._seen.get(node.name, set())
        self._cursors[node.name], self._seen[node.name] = newest["__CURSOR"], set(entries)
        return [entry for cursor, entry in entries.items() if cursor not in seen]


def _complaints(node: str, entries: Sequence[_Entry]) -> Iterator[Complaint]:
    """The complaints among entries. Restarts count only for units that did not fail: those complain anyway."""
    restarts: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        if entry.get("MESSAGE_ID") == _RESTART_SCHEDULED:
            restarts[_unit(entry)].append(entry)
    others = [entry for entry in entries if entry.get("MESSAGE_ID") != _RESTART_SCHEDULED]
    for entry in others:
        yield Complaint(node, _unit(entry), _message(entry))
    for unit in restarts.keys() - {_unit(entry) for entry in others}:
        if len(restarts[unit]) >= _CRASH_LOOP:
            yield Complaint(node, unit, f"restarted {len(restarts[unit])} times: {_message(restarts[unit][-1])}")


def _unit(entry: _Entry) -> str:
    return str(entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or "")


def _message(entry: _Entry) -> str:
    """The text of an entry; journalctl prints bytes that are not UTF-8 as a list of numbers."""
    message = entry.get("MESSAGE") or ""
    return bytes(message).decode(errors="replace") if isinstance(message, list) else str(message)
