"""Reading `servers.yml`: each flaw is told with file, line and a way out, before anything is created."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from swarmer.errors import SpecError
from swarmer.spec import (
    NAME_LENGTH,
    NAME_PATTERN,
    STACKS,
    BrokenRulesError,
    ConsulRole,
    Flaw,
    Registry,
    Server,
    Spec,
    SwarmRole,
    nearest,
)

Place = tuple[str | int, ...]

# `servers`, an index, `labels`, a label: nothing legal lies deeper, and an alias may contain itself.
DEEPEST: Final = 4
STORAGES: Final = ("filesystem", "s3")
CHOICES: Final = {"storage": [*STORAGES], "consul": [*ConsulRole], "swarm": [*SwarmRole], "stack": [*STACKS]}
NAME_HINT: Final = "it takes a-z, 0-9 and inner dashes, with a letter, 63 characters at most: "
WANTED: Final = {
    "memory": ("no number of MiB from 256 on", "write digits only, such as 3072"),
    "cpus": ("no number from 1 on", "write digits only, such as 2"),
    "ip": ("no IPv4 address", "write four numbers with dots, such as 192.168.101.101"),
    "internet": ("neither true nor false", "write true or false, without quotes"),
    "box": ("no name of a vagrant box", "write it as in yanndegat/swarmer"),
    "labels": (
        "not fit for a label",
        'write text to text, as in {disk: ssd, row: "1"}; names have no blanks',
    ),
    "registry": ("no description of a storage", "write it as in {storage: s3, bucket: images, region: eu-west-1}"),
    "bucket": ("no name of a bucket", "it takes a-z, 0-9, dots and inner dashes"),
    "region": ("no name of a region", "write it as in eu-west-1"),
    "endpoint": ("no address of an S3", "write it as in https://s3.example.org, without a path"),
    "credentials": ("no name of a file", "name the file with the access key, such as ~/.aws/credentials"),
    "servers": (
        "nothing that servers are made of",
        "begin each server with a dash, then its `key: value` lines",
    ),
}


@dataclass(frozen=True)
class _Odd:
    """A scalar that means nothing here, such as 1.5 or 0x10, or one with a tag of its own."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class _Document:
    """The plain values of a file, the line of each, and what is wrong with them as YAML."""

    lines: dict[Place, int] = field(default_factory=lambda: {(): 1})
    flaws: list[Flaw] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)

    def line(self, at: Place) -> int:
        """The line of a value, or of what is around it."""
        return self.lines[at] if at in self.lines else self.line(at[:-1])


def load(path: Path, *, stack: str | None = None, size: int | None = None) -> Spec:
    """Read and check the file of a cluster.

    Args:
        path: the YAML file.
        stack: goes before the file's own stack.
        size: makes so many nodes from the first server's entry, see `resized`. The file has to be right
            by itself all the same.

    Raises:
        SpecError: the file is missing, is no YAML, or breaks a rule. Each flaw is a line
            `FILE:LINE: SENTENCE` with its hint below it.
    """
    document = _parse(path)
    try:
        spec = Spec.model_validate(_with_defaults(document))
    except ValidationError as error:
        document.flaws += _explained(error, document.content)
        raise _report(path, document) from None
    if document.flaws:
        raise _report(path, document)
    spec = spec.with_stack(stack) if stack is not None else spec
    return spec if size is None else resized(spec, size)


def _report(path: Path, document: _Document) -> SpecError:
    """One error for all flaws, in the order of the file: each has its line, and its own hint below it."""
    located = sorted(((document.line(flaw.at), flaw) for flaw in document.flaws), key=itemgetter(0))
    *others, last = [SpecError(f"{path}:{line}: {flaw.message}", hint=flaw.hint) for line, flaw in located]
    return SpecError("\n".join(map(str, [*others, last.message])), hint=last.hint)


def resized(spec: Spec, size: int) -> Spec:
    """A cluster of `size` nodes like the first of `spec`, with default roles.

    `swarm-01` is followed by `swarm-02`. Addresses follow each other too; behind the network's last they
    go on at its first, so that all of it can be used.

    Raises:
        SpecError: the network has no room for so many, or a name grows too long.
    """
    network, first = spec.admin_network, spec.servers[0]
    room = network.num_addresses - 3
    if not 1 <= size <= room:
        message = f"admin_network {network} has room for 1 to {room} nodes, not {size}"
        raise SpecError(message, hint="ask for another size, or take a larger admin_network")
    names = [name for name, _ in zip(_counted_up(first.name), range(size), strict=False)]
    if len(names[-1]) > NAME_LENGTH:
        raise SpecError(f"the name of node {size} is too long: {names[-1]}", hint=f"shorten {first.name}")
    start = int(first.ip) - int(network[2])
    ips = [network[2 + (start + step) % room] for step in range(size)]
    common = first.model_dump(exclude={"consul", "swarm"})
    entries = [common | {"name": name, "ip": ip} for name, ip in zip(names, ips, strict=True)]
    return Spec.model_validate(spec.model_dump() | {"servers": _with_default_roles(entries)})


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what the file may hold, for editors."""
    schema = Spec.model_json_schema()
    server, keys = schema["$defs"]["Server"], schema["properties"]
    server["required"] = [key for key in server["required"] if key not in ("consul", "swarm")]
    keys["servers"]["minItems"] = 1
    keys["nodes"] = keys["servers"] | {"description": "An older name for `servers`."}
    keys["box"] = server["properties"]["box"] | {"description": "The vagrant box of nodes that name none."}
    schema["required"].remove("servers")
    one_of = [{"required": ["servers"]}, {"required": ["nodes"]}]
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | schema | {"title": "servers.yml", "oneOf": one_of}


def _counted_up(name: str) -> Iterator[str]:
    """The name, then the same with its trailing number (or else a second, third, …) counted up."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    yield name
    for step in count(1):
        yield f"{stem}{int(digits) + step:0{len(digits)}}" if digits else f"{name}-{step + 1}"


def _with_default_roles(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries with a role of both kinds. Where some give a kind, the others are agents of it."""
    voters = 1 if len(entries) < 3 else 3 if len(entries) < 7 else 5
    consul_given = any("consul" in entry for entry in entries)
    swarm_given = any("swarm" in entry for entry in entries)
    filled: list[dict[str, Any]] = []
    for index, entry in enumerate(entries):
        votes = not consul_given and index < voters
        consul = entry.get("consul", ConsulRole.SERVER if votes else ConsulRole.AGENT)
        leads = not swarm_given and consul == ConsulRole.SERVER
        swarm = entry.get("swarm", SwarmRole.BOTH if leads else SwarmRole.AGENT)
        filled.append({**entry, "consul": consul, "swarm": swarm})
    return filled


def _with_defaults(document: _Document) -> dict[str, Any]:
    content = dict(document.content)
    box = content.pop("box", None)
    if box is not None and not (isinstance(box, str) and re.fullmatch(r"\S+", box)):
        wanted, hint = WANTED["box"]
        document.flaws.append(Flaw(("box",), f"box is {_described(box)}, {wanted}", hint))
        box = None
    if isinstance(servers := content.get("servers"), list):
        entries = [{"box": box} | entry for entry in servers if isinstance(entry, dict)]
        filled = iter(_with_default_roles(entries))
        content["servers"] = [next(filled) if isinstance(entry, dict) else entry for entry in servers]
    return content


def _parse(path: Path) -> _Document:
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        root = YAML(typ="safe", pure=True).compose(text)  # pyright: ignore[reportUnknownMemberType]
    except OSError as error:
        hint = "name another file with --servers"
        raise SpecError(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SpecError(f"{path}:{line}: this is no text in UTF-8", hint="save it as UTF-8") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        hint = "mind the indentation, the colons and the quotes there and just above"
        raise SpecError(f"{path}:{line}: this is no YAML: {error.problem}", hint=hint) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"{path}:{line}: a character here can't stand in YAML", hint="remove it") from None
    except RecursionError:
        raise SpecError(f"{path}:1: this is nested too deeply", hint="two levels are all it takes") from None
    if not isinstance(root, MappingNode):
        fault = "the file is empty" if root is None else "this is no file of `key: value` lines"
        keys = ", ".join(json_schema()["required"])
        raise SpecError(f"{path}:1: {fault}", hint=f"it takes {keys} and servers; see `swarmer schema`")
    document = _Document()
    document.content = _plain_mapping(root, document, ())
    return document


def _plain(node: Any, document: _Document, at: Place) -> Any:
    document.lines.setdefault(at, node.start_mark.line + 1)
    match node:
        case MappingNode():
            return _plain_mapping(node, document, at) if len(at) < DEEPEST else {}
        case SequenceNode():
            items = node.value if len(at) < DEEPEST else []
            return [_plain(item, document, (*at, index)) for index, item in enumerate(items)]
        case _:
            return _plain_scalar(node)


def _plain_mapping(node: MappingNode, document: _Document, at: Place) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _plain_scalar(key_node) if isinstance(key_node, ScalarNode) else _Odd("a list or a mapping")
        name = "servers" if (at, key) == ((), "nodes") else str(key)
        place = (*at, name)
        document.lines[place] = key_node.start_mark.line + 1
        if not isinstance(key, str):
            hint = "put it in quotes, if it is meant as a key"
            document.flaws.append(Flaw(place, f"a key is {_described(key)}, no text", hint))
            continue
        if name in content:
            hint = "keep one; `nodes` is the older name of `servers`" if name == "servers" else "keep one"
            document.flaws.append(Flaw(place, f"`{key}` is there twice", hint))
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


def _explained(error: ValidationError, content: Mapping[str, Any]) -> Iterator[Flaw]:
    """What pydantic found, in words a person can act on."""
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, BrokenRulesError):
            yield from cause.flaws
            continue
        at: Place = tuple(part for part in detail["loc"] if part != "[key]")
        *owner, key = at
        model = Registry if owner == ["registry"] else Server if owner else Spec
        subject, fields = _subject(at, content), model.model_fields
        if detail["type"] == "missing":
            example = json.dumps((fields[str(key)].examples or [""])[0])
            yield Flaw(at, f"{subject} is missing", f"add `{key}: {example}`")
        elif detail["type"] == "extra_forbidden":
            yield Flaw(at, f"{subject} is unknown", nearest(str(key), _known(fields, owner)))
        else:
            value = detail["input"] if "[key]" in detail["loc"] else _value(at, content)
            wanted, hint = _wanted(at, value)
            yield Flaw(at, f"{subject} is {_described(value)}, {wanted}", hint)


def _known(fields: Iterable[str], owner: Sequence[str | int]) -> list[str]:
    """The keys that may stand somewhere: `box` in a server, and for all of them."""
    return list(fields) if owner == ["registry"] else list(dict.fromkeys([*fields, "box"]))


def _value(at: Place, content: Any) -> Any:
    """What the file has at a place, as it was before any conversion."""
    for part in at:
        content = content[part]
    return content


def _wanted(at: Place, value: Any) -> tuple[str, str]:
    """What should stand there instead of `value`, and how to get there."""
    match _key(at):
        case "consul" | "swarm" | "stack" | "storage" as key:
            choices = CHOICES[key]
            return f"not one of {', '.join(choices)}", nearest(str(value), choices)
        case "name" | "dc":
            proposal = re.sub(r"[^a-z0-9]+", "-", str(value).lower())[:NAME_LENGTH].strip("-")
            fits = isinstance(value, str) and re.match(NAME_PATTERN, proposal)
            return "no host name", NAME_HINT + (proposal if fits else "dev-1")
        case "admin_network":
            try:
                return "an address inside a network", f"write {IPv4Network(str(value), strict=False)}"
            except ValueError:
                return "no IPv4 network", "write address and prefix, such as 192.168.101.0/24"
        case key:
            return WANTED[key]


def _key(at: Place) -> str:
    """The key of the cluster or of a server that `at` is in."""
    match at:
        case ("registry", key) | (_, _, key, *_) | (key, *_):
            return str(key)
        case _:
            return ""


def _subject(at: Place, content: Mapping[str, Any]) -> str:
    match at:
        case (_, int(index)):
            return f"server {index + 1}"
        case ("registry", key):
            return f"{key} of the registry"
        case (_, int(index), *keys):
            name = content["servers"][index].get("name") if keys != ["name"] else None
            owner = name if isinstance(name, str) and re.match(NAME_PATTERN, name) else f"server {index + 1}"
            return f"{' '.join(map(str, keys))} of {owner}"
        case _:
            return " ".join(map(str, at))


def _described(value: object) -> str:
    match value:
        case None | "":
            return "empty"
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
