"""Reading `servers.yml`: each flaw is told with file, line and a way out, before anything is created."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarmer.errors import SpecError
from swarmer.spec.document import Document, described, parse
from swarmer.spec.flaws import Flaw
from swarmer.spec.messages import WANTED, to_flaws
from swarmer.spec.model import Spec
from swarmer.spec.values import NAME_LENGTH, ConsulRole, SwarmRole


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
    document = parse(path)
    try:
        spec = Spec.model_validate(_with_defaults(document))
    except ValidationError as error:
        document.flaws += to_flaws(error, document.content)
        raise _report(path, document) from None
    if document.flaws:
        raise _report(path, document)
    spec = spec.with_stack(stack) if stack is not None else spec
    return spec if size is None else resized(spec, size)


def _report(path: Path, document: Document) -> SpecError:
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


def _with_defaults(document: Document) -> dict[str, Any]:
    content = dict(document.content)
    box = content.pop("box", None)
    if box is not None and not (isinstance(box, str) and re.fullmatch(r"\S+", box)):
        wanted, hint = WANTED["box"]
        document.flaws.append(Flaw(("box",), f"box is {described(box)}, {wanted}", hint))
        box = None
    if isinstance(servers := content.get("servers"), list):
        entries = [{"box": box} | entry for entry in servers if isinstance(entry, dict)]
        filled = iter(_with_default_roles(entries))
        content["servers"] = [next(filled) if isinstance(entry, dict) else entry for entry in servers]
    return content
