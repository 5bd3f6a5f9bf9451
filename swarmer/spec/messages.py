"""What is wrong in `servers.yml`, in words a person can act on."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any, Final

from pydantic import ValidationError

from swarmer.errors import nearest
from swarmer.spec.document import Place, described
from swarmer.spec.flaws import BrokenRulesError, Flaw
from swarmer.spec.model import STACKS, Spec
from swarmer.spec.values import NAME_LENGTH, NAME_PATTERN, ConsulRole, Registry, Server, SwarmRole

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


def to_flaws(error: ValidationError, content: Mapping[str, Any]) -> Iterator[Flaw]:
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
            yield Flaw(at, f"{subject} is {described(value)}, {wanted}", hint)


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
