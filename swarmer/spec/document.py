"""A YAML file as plain values, with the line of each value, and what is wrong with the file as YAML."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from swarmer.errors import SpecError
from swarmer.spec.flaws import Flaw
from swarmer.spec.merge import Entries, plain
from swarmer.spec.model import Spec
from swarmer.spec.yaml_file import Alias, YamlFile

Place = tuple[str | int, ...]

#: `servers`, an index, `labels`, a label: no valid value is nested deeper, and an alias may contain itself.
_DEEPEST: Final = 4


@dataclass(frozen=True)
class _Odd:
    """A scalar of a type that isn't used here, such as 1.5 or 0x10, or one with an explicit tag."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Position:
    """Where something is in the file.

    Attributes:
        line: its line, from 1.
        alias: the line of the alias by which it came to where it is used; None without one.
    """

    line: int
    alias: int | None = None

    def __str__(self) -> str:
        """What to add to a message about it."""
        return "" if self.alias in (None, self.line) else f" (used by the alias in line {self.alias})"


@dataclass
class Document:
    """The plain values of a file.

    Attributes:
        content: the values. Extension fields, whose names begin with `x-`, are left out.
        positions: where each value is.
        texts: the text of each scalar that YAML reads as something other than text.
        flaws: what is wrong with the file as YAML, and where.
    """

    file: YamlFile
    content: dict[str, Any] = field(default_factory=dict)
    positions: dict[Place, Position] = field(default_factory=lambda: {(): Position(1)})
    texts: dict[Place, str] = field(default_factory=dict)
    flaws: list[tuple[Position, Flaw]] = field(default_factory=list)

    def position(self, at: Place) -> Position:
        """Where a value is, or the value that encloses it."""
        return self.positions[at] if at in self.positions else self.position(at[:-1])


def parse(path: Path) -> Document:
    """Read a YAML file that holds a mapping.

    Raises:
        SpecError: the file doesn't exist, isn't UTF-8, isn't valid YAML, or holds something other than a mapping.
    """
    file = YamlFile(path)
    if not isinstance(file.root, MappingNode):
        fault = "the file is empty" if file.root is None else "the file must consist of `key: value` lines"
        *keys, last = [key for key, field in Spec.model_fields.items() if field.is_required()]
        hint = f"{', '.join(keys)} and {last} are required; see `swarmer schema`"
        raise SpecError(f"{path}:1: {fault}", hint=hint)
    return _Reader(file).document


class _Reader:
    """Turns the nodes of a file into a document."""

    def __init__(self, file: YamlFile) -> None:
        self.document = Document(file)
        self._file = file
        self._entries = Entries(file.root)
        for flaw in self._entries.flaws:
            self.document.flaws.append((self._position(flaw.key), Flaw((), flaw.message, flaw.hint)))
        self.document.content = self._mapping(file.root, (), None)

    def _position(self, node: Any, through: Alias | None = None) -> Position:
        return Position(self._file.line(node.start_mark), self._file.line(through.start_mark) if through else None)

    def _value(self, node: Any, at: Place, through: Alias | None) -> Any:
        self.document.positions.setdefault(at, self._position(node, through))
        if isinstance(node, Alias):
            node, through = node.node, through or node
        match node:
            case MappingNode():
                return self._mapping(node, at, through) if len(at) < _DEEPEST else {}
            case SequenceNode():  # The only valid list is that of the servers.
                items = node.value if at == ("servers",) else []
                return [self._value(item, (*at, index), through) for index, item in enumerate(items)]
            case _:
                value = _scalar(node)
                if not isinstance(value, str):
                    self.document.texts[at] = node.value
                return value

    def _mapping(self, node: MappingNode, at: Place, through: Alias | None) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for entry in self._entries.of(node):
            key_node = plain(entry.key)
            key = _scalar(key_node) if isinstance(key_node, ScalarNode) else _Odd("a list or a mapping")
            name = str(self._entries.name(node, entry.key)) if isinstance(key, str) else str(key)
            # Labels may have any name.
            if isinstance(key, str) and name.startswith("x-") and at[2:] != ("labels",):
                continue
            place = (*at, name)
            position = self._position(entry.key, through or entry.through)
            self.document.positions[place] = position
            if not isinstance(key, str):
                quoted = isinstance(key_node, ScalarNode) and key_node.style
                hint = "write another key" if quoted else "put it in quotes if it is meant as a key"
                flaw = Flaw(place, f"a key must be text, got {describe(key)}", hint)
                self.document.flaws.append((position, flaw))
                continue
            content[name] = self._value(entry.value, place, through or entry.through)
        return content


def _scalar(node: ScalarNode) -> str | int | bool | _Odd | None:
    text: str = node.value
    match str(node.tag).removeprefix("tag:yaml.org,2002:"):
        case "str" | "timestamp" | "merge":  # YAML 1.2 has no timestamps
            # JSON escapes some characters as two surrogates, "\\ud83d\\ude00".
            text = re.sub("[\ud800-\udbff][\udc00-\udfff]", _combined, text)
            single = re.search("[\ud800-\udfff]", text)
            return _Odd(f"text with half a character, \\u{ord(single[0]):04x}") if single else text
        case "int" if re.fullmatch(r"[0-9]{1,9}", text):
            return int(text)
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "null":
            return None
        case _:
            return _Odd(text)


def _combined(surrogates: re.Match[str]) -> str:
    return surrogates[0].encode("utf-16", "surrogatepass").decode("utf-16")


def describe(value: object) -> str:
    """A value of the file in words, for a message: `the number 3`, `a list`, `'text'`."""
    match value:
        case None | "":
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case int():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= 80 else f"{value[:80]}…")
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)
