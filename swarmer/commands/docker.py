"""Running the docker client against the engines of a cluster, with the client certificate of the docker plane.

The host's own client is used if there is one; otherwise the node's client is run over SSH.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from swarmer.clients import direct
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.commands.program import Program
from swarmer.errors import SwarmerError
from swarmer.pool import Pool
from swarmer.ports import DOCKER
from swarmer.secrets.client_files import Plane
from swarmer.shell import communicate
from swarmer.spec import SwarmRole
from swarmer.ssh import quoted

#: Seconds after which an engine that doesn't answer is skipped, on a machine of usual speed.
_GLANCE: Final = 5.0

#: The variables that select docker's engine; those of the caller are dropped.
_NAMING: Final = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """The output of docker for one node's engine.

    Attributes:
        status: docker's exit status; None if the engine is down, or didn't answer in time.
    """

    status: int | None
    stdout: str = ""
    stderr: str = ""


def variables(node: Node) -> dict[str, str]:
    """The environment variables that connect the plain docker client to a node's engine, past the proxy if one is set.

    docker asks the proxy of `HTTPS_PROXY` for every engine that `NO_PROXY` doesn't exclude.
    """
    return {
        "DOCKER_HOST": f"tcp://{node.endpoint}:{DOCKER.number}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(node.cluster.home.client(Plane.DOCKER).certificate.parent),
        **(direct.no_proxy(node.endpoint) if direct.uses_proxy() else {}),
    }


def command(node: Node, arguments: Sequence[str], *, terminal: bool = False) -> Program:
    """`docker ARGUMENT…` for a node's engine.

    Args:
        terminal: whether to allocate a terminal on the node.
    """
    if shutil.which("docker"):
        environment = {name: value for name, value in os.environ.items() if name not in _NAMING}
        return Program(["docker", *arguments], environment | variables(node))
    options = ["-t"] if terminal else []
    return Program(
        node.cluster.ssh.command(node.name, "--", quoted("docker", *arguments), options=options), dict(os.environ)
    )


def output(node: Node, arguments: Sequence[str]) -> Output:
    """Run `docker ARGUMENT…` for a node's engine to its end."""
    if not listens(node):
        return Output(None)
    this = command(node, arguments)
    with this.popen(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            stdout, stderr = communicate(process, timeout=node.scaled(_GLANCE))
        except subprocess.TimeoutExpired:
            return Output(None)
    return Output(process.returncode, stdout, stderr)


def listens(node: Node) -> bool:
    """Whether a node is switched on and its engine's port is open. Returns quickly if it is down."""
    if not node.running:
        return False
    try:
        socket.create_connection((str(node.endpoint), DOCKER.number), timeout=node.scaled(_GLANCE)).close()
    except OSError:
        return False
    return True


def on_each(nodes: Iterable[Node], look: Callable[[Node], T]) -> dict[Node, T]:
    """The result of `look` for each node; all run in parallel."""
    nodes = list(nodes)
    with Pool(len(nodes)) as pool:
        return dict(zip(nodes, pool.map(look, nodes), strict=True))


def manager(cluster: Cluster) -> Node:
    """The first manager, in the order of the spec, whose swarm has a quorum; or else the first that answers.

    Raises:
        SwarmerError: no manager answers.
    """
    managers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.AGENT]
    for question in (["node", "ls", "--quiet"], ["version", "--format", "{{.Server.Version}}"]):
        for node, answer in on_each(managers, partial(output, arguments=question)).items():
            if answer.status == 0:
                return node
    raise SwarmerError(
        f"no manager of {cluster.name} answers: {', '.join(node.name for node in managers)}",
        hint=f"`swarmer status {cluster.name}` shows which nodes are on",
    )


def merge_tables(tables: Mapping[str, str]) -> list[list[str]]:
    """Merge tables into one with a column NODE in front.

    Args:
        tables: docker's output by node name: a header, and rows aligned with it.

    Returns:
        The cells of each row, the header first; empty if no node has printed a table.
    """
    merged: list[list[str]] = []
    for node, table in tables.items():
        lines = table.splitlines()
        if not lines:
            continue
        header, *rows = [_cells(line, _starts(lines[0])) for line in lines]
        if not merged:
            merged.append(["NODE", *header])
        merged += [[node, *row] for row in rows]
    return merged


def _starts(header: str) -> list[int]:
    """The offset of each column. Docker separates columns by three spaces or more; two are enough to find them."""
    return [0, *(found.end() for found in re.finditer(r" {2,}", header.rstrip()))]


def _cells(line: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], len(line)]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
