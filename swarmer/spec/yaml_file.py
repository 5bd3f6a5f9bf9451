"""Reading a YAML file as a graph of nodes, and what is wrong with its text."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import ScannerError

from swarmer.errors import SpecError

#: Characters that look like a space or like nothing, but don't separate anything in YAML.
_LOOKALIKE: Final = "[\x85\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]"

#: Where they are taken for a separator: in front of a line, around a plain value, or as a line break, which they are
#: for the parser.
_MISTAKEN: Final = re.compile(
    rf"""^[ \t-]* (?P<a>{_LOOKALIKE})
       | ^[^"'\#]* : [ ]* (?P<b>{_LOOKALIKE})
       | ^[^"'\#]* (?P<c>{_LOOKALIKE}) \s* (?: [:,\]}}] | $ | \# )
       | (?P<d>[\x85\u2028\u2029])""",
    re.VERBOSE,
)

_CHECK: Final = "check indentation, colons and quotes in that line and the lines above"


@dataclass(frozen=True)
class Alias:
    """The use of an anchored node, such as `*node`.

    Attributes:
        node: the node with the anchor.
        start_mark: where the alias is.
    """

    node: Any
    start_mark: Any


class _Composer(Composer):
    """Keeps aliases apart from the nodes that they stand for. YAML allows to define an anchor again."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)  # pyright: ignore[reportUnknownMemberType]
        self.warn_double_anchors = False

    def compose_node(self, parent: Any, index: Any) -> Any:
        if not self.parser.check_event(AliasEvent):
            return super().compose_node(parent, index)
        mark = self.parser.peek_event().start_mark
        return Alias(super().compose_node(parent, index), mark)


class YamlFile:
    """A file of one YAML document.

    Attributes:
        path: where it is.
        root: the topmost node; None if the file is empty.

    Raises:
        SpecError: the file doesn't exist, isn't UTF-8, or isn't valid YAML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = _read(path)
        parser = YAML(typ="safe", pure=True)
        parser.Composer = _Composer
        try:
            self.root: Any = parser.compose(self._text)  # pyright: ignore[reportUnknownMemberType]
        except MarkedYAMLError as error:
            raise self.lookalikes() or self._invalid(error) from None
        except ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise SpecError(f"{path}:{line}: character not allowed in YAML", hint="remove it") from None
        except (ValueError, OverflowError) as error:
            raise SpecError(f"{path}:1: invalid YAML: {error}", hint="check escapes such as \\U in quotes") from None
        except RecursionError:
            raise SpecError(f"{path}:1: nested too deeply", hint="two levels are enough") from None

    def line(self, mark: Any) -> int:
        """The line of a mark as editors count it, from 1. YAML's own count has further line breaks, such as U+2028."""
        return self._text.count("\n", 0, mark.index) + 1

    def lookalikes(self) -> SpecError | None:
        """The error for characters that are taken for spaces, one line of it for each line of the file; None without.

        They are valid in YAML, but the file means something else than it seems to.
        """
        found = [
            SpecError(f"{self.path}:{number}: {name} where a plain space belongs", hint="replace or remove it")
            for number, name in self._lookalikes()
        ]
        return SpecError("\n".join(map(str, [*found[:-1], found[-1].message])), hint=found[-1].hint) if found else None

    def _lookalikes(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self._text.split("\n"), start=1):
            if found := _MISTAKEN.search(line):
                character = next(filter(None, found.groups()))
                name = unicodedata.name(character, "line break").lower()
                yield number, f"{name} (U+{ord(character):04X})"

    def _invalid(self, error: MarkedYAMLError) -> SpecError:
        mark = error.problem_mark or error.context_mark
        if error.context_mark and re.search("end of stream|stream end", str(error.problem)):
            mark = error.context_mark  # where it begins, not the end of the file
        problem, hint = _problem(error)
        if error.context_mark and "flow" in str(error.context):
            hint = f"check commas and colons, and whether the bracket in line {self.line(error.context_mark)} is closed"
        return SpecError(f"{self.path}:{self.line(mark) if mark else 1}: invalid YAML: {problem}", hint=hint)


def _read(path: Path) -> str:
    """The text of a file, with line feeds as line breaks."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        hint = "use --servers to name another file"
        raise SpecError(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint) from None
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n?|\n", error.object[: error.start])) + 1
        raise SpecError(f"{path}:{line}: not valid UTF-8", hint="save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _problem(error: MarkedYAMLError) -> tuple[str, str]:
    """What is wrong according to the parser, and a hint."""
    problem = str(error.problem)
    match error:
        case ScannerError() if found := re.search(r"character '(.+)' that cannot start any token", problem):
            if found[1] == "\\t":
                return "tab where spaces belong", "replace the tab by spaces"
            return problem, f"put text that begins with {found[1]} in quotes"
        case ScannerError() if "end of stream" in problem and "quoted" in str(error.context):
            return "a quote that never ends begins", "end it"
        case ComposerError() if "undefined alias" in problem:
            return problem, "define it above with `&`, or put the text in quotes if `*` is part of it"
        case ComposerError() if "another document" in problem:
            return "a second document begins", "keep one document"
        case _:
            return problem, _CHECK
