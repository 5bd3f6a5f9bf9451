"""Merge keys: `<<: *defaults` in a mapping adds the keys of another one that it doesn't have itself.

They are part of YAML 1.1 (https://yaml.org/type/merge.html), and usual in files for Vagrant and compose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from swarmer.spec.yaml_file import Alias

_MERGE: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Entry:
    """A key of a mapping with its value.

    Attributes:
        through: the alias by which it was merged; None for the mapping's own keys.
    """

    key: Any
    value: Any
    through: Alias | None = None


@dataclass(frozen=True)
class MergeFlaw:
    """A mistake in the keys of a mapping, wherever it is used; `key` is the node that is named."""

    key: Any
    message: str
    hint: str


class Entries:
    """The entries of every mapping below a node.

    Attributes:
        flaws: duplicate keys, and what can't be merged.
    """

    def __init__(self, root: Any) -> None:
        self.flaws: list[MergeFlaw] = []
        self._root = root
        self._merged: dict[int, list[Entry]] = {}
        self._under_way: set[int] = set()
        for node in _all_nodes(root):
            if isinstance(node, MappingNode):
                self.of(node)

    def of(self, mapping: MappingNode) -> list[Entry]:
        """The mapping's own entries, then the merged ones. Each key is there once, unless it is a flaw."""
        if id(mapping) not in self._merged:
            self._under_way.add(id(mapping))
            self._merged[id(mapping)] = self._combine(mapping)
            self._under_way.remove(id(mapping))
        return self._merged[id(mapping)]

    def name(self, mapping: MappingNode, key: Any) -> str | int:
        """What identifies a key: its text; a list or mapping has none, and is equal to nothing."""
        key = plain(key)
        if not isinstance(key, ScalarNode):
            return id(key)
        return "servers" if mapping is self._root and key.value == "nodes" else str(key.value)

    def _combine(self, mapping: MappingNode) -> list[Entry]:
        merges: list[tuple[Any, Any]] = []
        found: dict[str | int, Entry] = {}
        for key, value in mapping.value:
            merge = isinstance(key, ScalarNode) and str(key.tag) == _MERGE
            name = "<<" if merge else self.name(mapping, key)
            if name in found or (merge and merges):
                hint = {"servers": "keep one; `nodes` is the older name of `servers`", "<<": "merge a list: [*a, *b]"}
                self.flaws.append(MergeFlaw(key, f"duplicate key `{name}`", hint.get(str(name), "keep one")))
            if merge:
                merges.append((key, value))
            else:
                found[name] = Entry(key, value)
        for key, value in merges:
            for entry in self._merge(key, value):
                found.setdefault(self.name(mapping, entry.key), entry)
        return list(found.values())

    def _merge(self, key: Any, value: Any) -> Iterator[Entry]:
        source = plain(value)
        for item in source.value if isinstance(source, SequenceNode) else [value]:
            other = plain(item)
            if not isinstance(other, MappingNode):
                message = "`<<` must be a mapping or a list of mappings"
                self.flaws.append(MergeFlaw(key, message, "merge an anchored mapping, such as `<<: *defaults`"))
            elif id(other) in self._under_way:
                self.flaws.append(MergeFlaw(key, "`<<` merges a mapping into itself", "remove it"))
            else:
                alias = next((used for used in (item, value) if isinstance(used, Alias)), None)
                for entry in self.of(other):
                    yield Entry(entry.key, entry.value, alias or entry.through)


def plain(node: Any) -> Any:
    """The node itself, or the one that an alias stands for."""
    return node.node if isinstance(node, Alias) else node


def _all_nodes(root: Any) -> Iterator[Any]:
    """Every node below a node once, however often aliases use it."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = plain(waiting.pop())
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, MappingNode):
            waiting += [part for entry in node.value for part in entry]
        elif isinstance(node, SequenceNode):
            waiting += node.value
