"""A YAML file as plain values, with the line of each value, and what is wrong with the file as YAML."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from swarmer.errors import SpecError
from swarmer.spec.flaws import Flaw
from swarmer.spec.model import Spec

Place = tuple[str | int, ...]

# `servers`, an index, `labels`, a label: no valid value is nested deeper, and an alias may contain itself.
DEEPEST: Final = 4


@dataclass(frozen=True)
class _Odd:
    """A scalar of a type that isn't used here, such as 1.5 or 0x10, or one with an explicit tag."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class Document:
    """The plain values of a file, the line of each value, and what is wrong with the file as YAML."""

    lines: dict[Place, int] = field(default_factory=lambda: {(): 1})
    flaws: list[Flaw] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)

    def line(self, at: Place) -> int:
        """The line of a value, or of the value that encloses it."""
        return self.lines[at] if at in self.lines else self.line(at[:-1])


def parse(path: Path) -> Document:
    """Read a YAML file that holds a mapping.

    Raises:
        SpecError: the file doesn't exist, isn't UTF-8, isn't valid YAML, or holds something other than a mapping.
    """
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        root = YAML(typ="safe", pure=True).compose(text)  # pyright: ignore[reportUnknownMemberType]
    except OSError as error:
        hint = "use --servers to name another file"
        raise SpecError(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path}:{line}: not valid UTF-8", hint="save the file as UTF-8") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        hint = "check indentation, colons and quotes in that line and the lines above"
        raise SpecError(f"{path}:{line}: invalid YAML: {error.problem}", hint=hint) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"{path}:{line}: character not allowed in YAML", hint="remove it") from None
    except (ValueError, OverflowError) as error:
        raise SpecError(f"{path}:1: invalid YAML: {error}", hint="check escapes such as \\U in quotes") from None
    except RecursionError:
        raise SpecError(f"{path}:1: nested too deeply", hint="two levels are enough") from None
    if not isinstance(root, MappingNode):
        fault = "the file is empty" if root is None else "the file must consist of `key: value` lines"
        *keys, last = [key for key, field in Spec.model_fields.items() if field.is_required()]
        hint = f"{', '.join(keys)} and {last} are required; see `swarmer schema`"
        raise SpecError(f"{path}:1: {fault}", hint=hint)
    document = Document()
    document.content = _plain_mapping(root, document, ())
    return document


def _plain(node: Any, document: Document, at: Place) -> Any:
    document.lines.setdefault(at, node.start_mark.line + 1)
    match node:
        case MappingNode():
            return _plain_mapping(node, document, at) if len(at) < DEEPEST else {}
        case SequenceNode():
            items = node.value if len(at) < DEEPEST else []
            return [_plain(item, document, (*at, index)) for index, item in enumerate(items)]
        case _:
            return _plain_scalar(node)


def _plain_mapping(node: MappingNode, document: Document, at: Place) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _plain_scalar(key_node) if isinstance(key_node, ScalarNode) else _Odd("a list or a mapping")
        name = "servers" if (at, key) == ((), "nodes") else str(key)
        place = (*at, name)
        document.lines[place] = key_node.start_mark.line + 1
        if not isinstance(key, str):
            hint = "put it in quotes if it is meant as a key"
            document.flaws.append(Flaw(place, f"a key must be text, got {describe(key)}", hint))
            continue
        if name in content:
            hint = "keep one; `nodes` is the older name of `servers`" if name == "servers" else "keep one"
            document.flaws.append(Flaw(place, f"duplicate key `{name}`", hint))
        content[name] = _plain(value_node, document, place)
    return content


def _plain_scalar(node: ScalarNode) -> str | int | bool | _Odd | None:
    text: str = node.value
    match str(node.tag).removeprefix("tag:yaml.org,2002:"):
        case "str" | "timestamp" | "merge":  # YAML 1.2 has no timestamps
            return text
        case "int" if re.fullmatch(r"[0-9]{1,9}", text):
            return int(text)
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "null":
            return None
        case _:
            return _Odd(text)


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
