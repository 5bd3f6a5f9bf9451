"""Reading `servers.yml`, reporting each mistake with line and hint, and the file's JSON schema."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from swarmer.errors import SpecError
from swarmer.spec.document import Document, Place, Position, parse
from swarmer.spec.flaws import Flaw
from swarmer.spec.messages import invalid_places, to_flaws
from swarmer.spec.model import Spec
from swarmer.spec.values import NAME_LENGTH, ConsulRole, SwarmRole

#: The name of the file.
NAME: Final = "servers.yml"


def find(folder: Path) -> Path | None:
    """The file in a folder, or in the nearest one above it; None if there is none."""
    # Unlike Path.is_file(), this is False in a folder above that this user has no access to.
    return next((path for parent in (folder, *folder.parents) if os.path.isfile(path := parent / NAME)), None)  # noqa: PTH113


def load(path: Path, *, stack: str | None = None, size: int | None = None) -> Spec:
    """Read and check the file of a cluster.

    Args:
        path: the YAML file.
        stack: overrides the stack of the file.
        size: number of nodes to derive from the first server, see `resized`. The file itself must be valid
            nevertheless.

    Raises:
        SpecError: the file is missing, isn't valid YAML, or breaks a rule. Each mistake is a line
            `FILE:LINE: SENTENCE` with its hint on the next line.
    """
    document = parse(path)
    spec = None
    try:
        spec = Spec.model_validate(_with_defaults(document.content))
    except ValidationError as error:
        for flaw in to_flaws(error, document.content, _quotable(document)):
            document.flaws.append((document.position(flaw.at), flaw))
    if document.flaws or spec is None:
        raise document.file.lookalikes() or _report(path, document.flaws)
    spec = spec.with_stack(stack) if stack is not None else spec
    return spec if size is None else resized(spec, size)


def _report(path: Path, flaws: Sequence[tuple[Position, Flaw]]) -> SpecError:
    """One error for all flaws in the order of the file, each with its line number and its own hint."""
    *others, last = [
        SpecError(f"{path}:{position.line}: {flaw.message}{position}", hint=flaw.hint)
        for position, flaw in sorted(flaws, key=lambda found: found[0].line)
    ]
    return SpecError("\n".join(map(str, [*others, last.message])), hint=last.hint)


def _quotable(document: Document) -> dict[Place, str]:
    """The text of each value that YAML reads as something else, but that would be valid in quotes."""
    content = copy.deepcopy(document.content)
    for at, text in document.texts.items():
        owner: Any = content
        for part in at[:-1]:
            owner = owner[part]
        owner[at[-1]] = text
    try:
        Spec.model_validate(_with_defaults(content))
    except ValidationError as error:
        invalid = invalid_places(error, content)
        return {at: text for at, text in document.texts.items() if at not in invalid}
    return document.texts


def resized(spec: Spec, size: int) -> Spec:
    """A cluster of `size` nodes with the settings of the first server of `spec`, and with default roles.

    Names are counted up from the first one, such as `swarm-01`, `swarm-02`. So are addresses; the last one of the
    network is followed by the first, so that the whole network can be used.

    Raises:
        SpecError: the network is too small, or a name becomes too long.
    """
    network, first = spec.admin_network, spec.servers[0]
    places = spec.rules.places(network)
    room = len(places)
    if not 1 <= size <= room:
        message = f"admin_network {network} has room for 1 to {room} nodes, not {size}"
        raise SpecError(message, hint="choose another size, or a larger admin_network")
    names = [name for name, _ in zip(_counted_up(first.name), range(size), strict=False)]
    if len(names[-1]) > NAME_LENGTH:
        raise SpecError(f"the name of node {size} is too long: {names[-1]}", hint=f"shorten {first.name}")
    start = places.index(int(first.ip) - int(network[0]))
    ips = [network[places[(start + step) % room]] for step in range(size)]
    common = first.model_dump(exclude={"consul", "swarm"})
    entries = [common | {"name": name, "ip": ip} for name, ip in zip(names, ips, strict=True)]
    return Spec.model_validate(spec.model_dump() | {"servers": _with_default_roles(entries)})


def _counted_up(name: str) -> Iterator[str]:
    """The name, then the name with its trailing number counted up; without one, `-2`, `-3`, … are appended."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    yield name
    for step in count(1):
        yield f"{stem}{int(digits) + step:0{len(digits)}}" if digits else f"{name}-{step + 1}"


def _with_default_roles(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries with both roles set. If some entries set a role, all others become agents of that kind."""
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


def _with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    content = dict(content)
    if isinstance(servers := content.get("servers"), list):
        filled = iter(_with_default_roles([entry for entry in servers if isinstance(entry, dict)]))
        content["servers"] = [next(filled) if isinstance(entry, dict) else entry for entry in servers]
    return content


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the file, for editors."""
    schema = Spec.model_json_schema()
    server, keys = schema["$defs"]["Server"], schema["properties"]
    server["required"] = [key for key in server["required"] if key not in ("consul", "swarm")]
    keys["servers"]["minItems"] = 1
    keys["nodes"] = keys["servers"] | {"description": "An older name for `servers`."}
    keys["vagrant"] = keys["vagrant"] | {"description": "Settings of the stack vagrant, for nodes without their own."}
    box = schema["$defs"]["VagrantSettings"]["properties"]["box"]
    keys["box"] = server["properties"]["box"] = box | {"description": "An older spelling of `vagrant: {box: …}`."}
    schema["required"].remove("servers")
    for mapping in (schema, *(part for part in schema["$defs"].values() if "properties" in part)):
        mapping["patternProperties"] = {"^x-": {"description": "An extension field: ignored, for anchors."}}
    one_of = [{"required": ["servers"]}, {"required": ["nodes"]}]
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | schema | {"title": "servers.yml", "oneOf": one_of}
