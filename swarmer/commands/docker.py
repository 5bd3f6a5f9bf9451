"""The docker client against the engines of a cluster, with the client certificate of the docker plane.

The client is the host's own, where there is one, against the engine's port; else the one of the node, over SSH.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.ports import DOCKER
from swarmer.spec import SwarmRole
from swarmer.ssh import quoted
from swarmer.wait import patient

#: Seconds until an engine that doesn't answer is passed over, on a machine of usual speed.
_GLANCE: Final = 5.0

#: What names an engine to the docker client; of the caller's, nothing may remain.
_NAMING: Final = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")

T = TypeVar("T")


@dataclass(frozen=True)
class Command:
    """A command line of docker for one node's engine, with its environment."""

    words: Sequence[str]
    environment: Mapping[str, str]

    def replace_process(self) -> NoReturn:
        """Let it take over this process, with its terminal, its signals and its exit status."""
        os.execvpe(self.words[0], list(self.words), dict(self.environment))

    def popen(self, **options: Any) -> "subprocess.Popen[str]":
        """Start it with text pipes; `options` are `Popen`'s."""
        return subprocess.Popen(self.words, env=dict(self.environment), text=True, errors="replace", **options)


@dataclass(frozen=True)
class Output:
    """What docker printed for one node's engine.

    Attributes:
        status: its exit status; None when the engine is down, or didn't answer in time.
    """

    status: int | None
    stdout: str = ""
    stderr: str = ""


def variables(node: Node) -> dict[str, str]:
    """What the plain docker client wants in its environment to talk to a node's engine."""
    return {
        "DOCKER_HOST": f"tcp://{node.ip}:{DOCKER.number}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(node.cluster.home.folder / "docker"),
    }


def command(node: Node, arguments: Sequence[str], *, terminal: bool = False) -> Command:
    """`docker ARGUMENT…` for a node's engine.

    Args:
        terminal: there is one, for the client to use.
    """
    if shutil.which("docker"):
        environment = {name: value for name, value in os.environ.items() if name not in _NAMING}
        return Command(["docker", *arguments], environment | variables(node))
    options = ["-t"] if terminal else []
    return Command(
        node.cluster.ssh.command(node.name, "--", quoted("docker", *arguments), options=options), dict(os.environ)
    )


def output(node: Node, arguments: Sequence[str]) -> Output:
    """What `docker ARGUMENT…` prints for a node's engine."""
    if not listens(node):
        return Output(None)
    this = command(node, arguments)
    with this.popen(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            stdout, stderr = process.communicate(timeout=patient(_GLANCE))
        except subprocess.TimeoutExpired:
            process.kill()
            return Output(None)
    return Output(process.returncode, stdout, stderr)


def listens(node: Node) -> bool:
    """Whether a node is on and its engine's port is open: a quick no for one that is down."""
    if not node.running:
        return False
    try:
        socket.create_connection((str(node.ip), DOCKER.number), timeout=patient(_GLANCE)).close()
    except OSError:
        return False
    return True


def on_each(nodes: Iterable[Node], look: Callable[[Node], T]) -> dict[Node, T]:
    """What `look` finds on each node, side by side."""
    nodes = list(nodes)
    with ThreadPoolExecutor(len(nodes) or 1) as pool:
        return dict(zip(nodes, pool.map(look, nodes), strict=True))


def manager(cluster: Cluster) -> Node:
    """The first manager, in the order of the spec, that answers for a swarm with a quorum; else the first that answers.

    Raises:
        SwarmerError: none answers.
    """
    managers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.AGENT]
    for question in (["node", "ls", "--quiet"], ["version", "--format", "{{.Server.Version}}"]):
        for node, said in on_each(managers, partial(output, arguments=question)).items():
            if said.status == 0:
                return node
    raise SwarmerError(
        f"no manager of {cluster.name} answers: {', '.join(node.name for node in managers)}",
        hint=f"`swarmer status {cluster.name}` tells which nodes are on",
    )
