"""The mistakes that pydantic finds in `servers.yml`, as sentences that say what was expected."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any, Final

from pydantic import ValidationError

from swarmer.errors import nearest
from swarmer.spec.document import Place, describe
from swarmer.spec.flaws import BrokenRulesError, Flaw
from swarmer.spec.model import Spec
from swarmer.spec.stacks import STACKS, VagrantSettings, Value
from swarmer.spec.values import (
    MIN_CPUS,
    MIN_MEMORY,
    NAME_LENGTH,
    NAME_PATTERN,
    STORAGES,
    ConsulRole,
    Registry,
    Server,
    SwarmRole,
)

CHOICES: Final = {"storage": [*STORAGES], "consul": [*ConsulRole], "swarm": [*SwarmRole], "stack": [*STACKS]}

#: What a key must be, to follow "must be", and a hint.
EXPECTED: Final = {
    "memory": (f"an integer of at least {MIN_MEMORY} (MiB)", "use digits only, such as 3072"),
    "cpus": (f"an integer of at least {MIN_CPUS}", "use digits only, such as 2"),
    "ip": ("an IPv4 address", "use four numbers with dots, such as 192.168.101.101"),
    "internet": ("true or false", "write true or false, without quotes"),
    "vagrant": ("a mapping", "use a mapping such as {box: yanndegat/swarmer}"),
    "box": ("the name of a vagrant box", "use a name such as yanndegat/swarmer"),
    "labels": (
        "a valid label",
        'map text to text, such as {disk: ssd, row: "1"}; names contain no blanks',
    ),
    "registry": ("a mapping", "use a mapping such as {storage: s3, bucket: images, region: eu-west-1}"),
    "bucket": ("the name of a bucket", "use a-z, 0-9, dots and inner dashes"),
    "region": ("the name of a region", "use a name such as eu-west-1"),
    "endpoint": ("the address of an S3 service", "use an address such as https://s3.example.org, without a path"),
    "credentials": ("the name of a file", "name the file that holds the access key, such as ~/.aws/credentials"),
    "servers": ("a list of mappings", "begin each server with a dash, followed by its `key: value` lines"),
}


def to_flaws(
    error: ValidationError, content: Mapping[str, Any], quotable: Mapping[Place, str] | None = None
) -> Iterator[Flaw]:
    """The flaws behind a validation error.

    Args:
        error: what pydantic raised for a `Spec`.
        content: the content of the file, before any conversion.
        quotable: the text of each value that isn't text, but would be valid in quotes.
    """
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, BrokenRulesError):
            yield from cause.flaws
            continue
        at = _written(tuple(part for part in detail["loc"] if part != "[key]"), content)
        *owner, key = at
        model = _model(owner)
        subject, fields = _subject(at, content), model.model_fields
        if detail["type"] == "missing":
            example = json.dumps((fields[str(key)].examples or [""])[0])
            yield Flaw(at, f"{subject} is missing", f"add `{key}: {example}`")
        elif detail["type"] == "extra_forbidden":
            yield Flaw(at, f"{subject} is unknown", nearest(str(key), _known(fields, owner)))
        else:
            value = detail["input"] if "[key]" in detail["loc"] else _value(at, content)
            expected, hint = _expected(at, value)
            if quotable and at in quotable:
                hint = f"put it in quotes if it is meant as text: {json.dumps(quotable[at], ensure_ascii=False)}"
            yield Flaw(at, f"{subject} must be {expected}, got {describe(value)}", hint)


def invalid_places(error: ValidationError, content: Mapping[str, Any]) -> set[Place]:
    """The places in the file of the values that are invalid by themselves."""
    return {_written(tuple(detail["loc"]), content) for detail in error.errors(include_url=False)}


def _written(at: Place, content: Mapping[str, Any]) -> Place:
    """Where a value is in the file, which may have the older spelling of `vagrant: {box: …}`."""
    older = (*at[:-2], "box")
    return older if at[-2:] == ("vagrant", "box") and "vagrant" not in _value(at[:-2], content) else at


def _model(owner: Sequence[str | int]) -> type[Value]:
    """The model of the mapping at a place."""
    match owner:
        case []:
            return Spec
        case [*_, "vagrant"]:
            return VagrantSettings
        case ["registry"]:
            return Registry
        case _:
            return Server


def _known(fields: Iterable[str], owner: Sequence[str | int]) -> list[str]:
    """The valid keys next to an unknown one, with the older spelling `box` where there are settings of Vagrant."""
    return [*fields, "box"] if _model(owner) in (Spec, Server) else list(fields)


def _value(at: Place, content: Any) -> Any:
    """The value at a place of the file, before any conversion."""
    for part in at:
        content = content[part]
    return content


def _expected(at: Place, value: Any) -> tuple[str, str]:
    """What is expected at a place instead of `value`, and a hint."""
    match _key(at):
        case "consul" | "swarm" | "stack" | "storage" as key:
            choices = CHOICES[key]
            return f"one of {', '.join(choices)}", nearest(str(value), choices)
        case "name" | "dc":
            proposal = re.sub(r"[^a-z0-9]+", "-", str(value).lower())[:NAME_LENGTH].strip("-")
            fits = isinstance(value, str) and re.match(NAME_PATTERN, proposal)
            rules = f"use a-z, 0-9 and inner dashes, at least one letter, at most {NAME_LENGTH} characters"
            return "a host name", f"{rules}, such as {proposal if fits else 'dev-1'}"
        case "admin_network" | "ip" if plain := _without_leading_zeros(str(value)):
            kind = "an IPv4 address" if at[-1] == "ip" else "an IPv4 network"
            return kind, f"numbers with leading zeros are ambiguous: use {plain}"
        case "admin_network":
            try:
                return "the address of a network", f"use {IPv4Network(str(value), strict=False)}"
            except ValueError:
                return "an IPv4 network", "use an address and a prefix length, such as 192.168.101.0/24"
        case "servers" if len(at) > 1:
            return "a mapping", EXPECTED["servers"][1]
        case "labels" if at[-1:] == ("labels",):
            return "a mapping of text to text", EXPECTED["labels"][1]
        case key:
            return EXPECTED[key]


def _without_leading_zeros(address: str) -> str:
    """An IPv4 address or network written with leading zeros, without them; empty for anything else."""
    plain = re.sub(r"\b0+(?=[0-9])", "", address)
    try:
        IPv4Network(plain, strict=False)
    except ValueError:
        return ""
    return plain if plain != address else ""


def _key(at: Place) -> str:
    """The key, of the cluster, a server or the registry, whose value `at` is in."""
    match at:
        case ("registry" | "vagrant", key) | (_, _, "vagrant", key) | (_, _, key, *_) | (key, *_):
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
            return f"{' '.join(map(str, keys)).replace('labels ', 'label ', 1)} of {owner}"
        case _:
            return " ".join(map(str, at))
