"""The attributes of services: SERVICE_* variables and labels of containers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "SERVICE_"

#: Consul's limits of service metadata, from the reference of its agent API.
MAX_META_PAIRS: Final = 64
MAX_META_VALUE: Final = 512
_META_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PORT: Final = re.compile(r"[0-9]{1,5}")

#: Attributes that steer the registration; the others become metadata.
_STEERING: Final = frozenset({"id", "name", "tags", "ignore"})
_CHECK: Final = "check_"


@dataclass(frozen=True)
class Attributes:
    """The attributes of one port's service.

    Attributes:
        values: attribute name, lower case and without SERVICE_, to its value.
        of_port: the names that were given for this very port: SERVICE_80_NAME.
    """

    values: Mapping[str, str]
    of_port: frozenset[str] = frozenset()

    def get(self, name: str) -> str:
        """The value of an attribute without blanks around it, or ""."""
        return self.values.get(name, "").strip()

    def meta(self) -> dict[str, str]:
        """The metadata for consul: attributes without another use, within consul's limits."""
        return {
            name: value
            for name, value in sorted(self.values.items())
            if name not in _STEERING
            and not name.startswith((_CHECK, "consul-"))
            and value
            and _META_KEY.fullmatch(name)
            and len(value.encode()) <= MAX_META_VALUE
        }


def attributes(port: int, *sources: Mapping[str, str]) -> Attributes:
    """The attributes for one port. A later source wins over an earlier one; SERVICE_80_X over SERVICE_X anyway."""
    generic: dict[str, str] = {}
    of_port: dict[str, str] = {}
    for source in sources:
        for key, value in source.items():
            if not key.startswith(PREFIX):
                continue
            name = key.removeprefix(PREFIX).lower()
            head, _, tail = name.partition("_")
            if _PORT.fullmatch(head) and tail:
                if int(head) == port:
                    of_port[tail] = value
            elif name:
                generic[name] = value
    return Attributes({**generic, **of_port}, frozenset(of_port))


def environment(variables: Iterable[str] | None) -> dict[str, str]:
    """`NAME=value` strings, as docker lists them, as a mapping."""
    pairs = (variable.partition("=") for variable in variables or ())
    return {name: value for name, equals, value in pairs if equals}


def tags(*lists: str) -> tuple[str, ...]:
    r"""The tags of comma-separated lists, each tag once; `\,` is a comma within a tag."""
    found = []
    for text in lists:
        for part in re.split(r"(?<!\\),", text):
            if tag := part.replace("\\,", ",").strip():
                found.append(tag)
    return tuple(dict.fromkeys(found))
