"""The journal of changes in consul, by which a node learns what a push changed without reading all that there is.

    registry/changed            the latest change: its number, and a random id
    registry/journal/NUMBER     what it changed, and the id of the change before; the number modulo `LENGTH`

Every change writes both, in its own transaction. A node that knows everything up to one change reads the entries after
it. If they are no longer there, or don't continue what it knows, it has to look at everything: it was cut off for too
long, or a snapshot of consul was restored, after which the same numbers stand for other changes.
"""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

CHANGED: Final = "registry/changed"
ENTRIES: Final = "registry/journal/"

#: The entries that consul keeps, of 200 bytes each for a push.
LENGTH: Final = 500


@dataclass(frozen=True)
class Position:
    """One change, and with it everything before it.

    Attributes:
        number: of the change; 0 before the first one.
        id: random.
    """

    number: int = 0
    id: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Position":
        """From consul's entry of `CHANGED`. An earlier version of this program wrote no number there."""
        try:
            return cls(**json.loads(base64.b64decode(entry["Value"])))
        except (ValueError, TypeError):
            return cls(0, f"index {entry['ModifyIndex']}")

    def next(self) -> "Position":
        """A change after this one."""
        return Position(self.number + 1, secrets.token_hex(8))


@dataclass(frozen=True)
class Entry:
    """What one change changed.

    Attributes:
        number: of the change.
        id: of the change.
        previous: the id of the change before it.
        manifests: the keys of the manifests that were recorded, changed or removed.
    """

    number: int
    id: str
    previous: str
    manifests: tuple[str, ...]

    @property
    def key(self) -> str:
        return key(self.number)

    @property
    def value(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Entry":
        """From an entry of consul's."""
        found = json.loads(base64.b64decode(entry["Value"]))
        return cls(**found | {"manifests": tuple(found["manifests"])})


def key(number: int) -> str:
    """Where the entry of a change stands. No key begins with another one."""
    return f"{ENTRIES}{number % LENGTH:03}"


def numbers(since: Position, until: Position) -> Sequence[int] | None:
    """The numbers of the changes after one up to another one; None if the journal doesn't reach so far."""
    return range(since.number + 1, until.number + 1) if 0 < until.number - since.number <= LENGTH else None


def changed(since: Position, until: Position, entries: Sequence[Entry]) -> set[str] | None:
    """The keys of the manifests that the changes after one up to another one changed.

    Args:
        entries: what stands in the journal for `numbers(since, until)`.

    Returns:
        None if these entries don't lead from one to the other.
    """
    at = since
    for entry in sorted(entries, key=lambda entry: entry.number):
        if (entry.number, entry.previous) != (at.number + 1, at.id):
            return None
        at = Position(entry.number, entry.id)
    return {manifest for entry in entries for manifest in entry.manifests} if at == until else None
