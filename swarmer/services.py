"""Swarm services, controlled from the host: create them, read and await their tasks, and remove all of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from swarmer.clients import docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import NodeError
from swarmer.ssh import quoted
from swarmer.undo import UndoStack
from swarmer.wait import NotYet


@dataclass(frozen=True)
class Task:
    """One task of a service, as the managers know it.

    Attributes:
        node: the name of its node; empty while it has none.
        state: as docker names it, such as `running`, `pending` or `failed`.
        wanted: whether it should run; docker keeps former tasks for a while.
        container: the id of its container; empty while it has none.
        problem: docker's reason why it doesn't run.
        addresses: its addresses in the networks that it is attached to.
    """

    id: str
    node: str
    state: str
    wanted: bool
    container: str
    problem: str
    addresses: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Whether it runs, as it should."""
        return self.wanted and self.state == "running"


class Services:
    """The services of one scenario, and what else it creates in the swarm; `remove_all` removes all of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._made: list[tuple[str, str]] = []

    def docker(self, *words: str, input: str | None = None) -> str:
        """The output of the docker client on the node that leads the swarm.

        Raises:
            PromiseBroken: the command failed.
        """
        return self.cluster.swarm_leader().succeed(quoted("docker", *words), input=input)

    def create(self, name: str, *words: str) -> None:
        """Create a service; doesn't wait for its tasks.

        Args:
            words: the arguments of `docker service create`: options, image, command.
        """
        self._made.append(("service", name))
        # The images are not in a registry, so their digests can't be resolved. A shell as the first process of a
        # container ignores SIGTERM: without the short grace period, each removal would take ten seconds.
        always = ("--detach", "--quiet", "--no-resolve-image", "--stop-grace-period=1s", "--restart-delay=500ms")
        self.docker("service", "create", *always, "--name", name, *words)

    def update(self, name: str, *words: str) -> None:
        """Change a service; doesn't wait for its tasks."""
        self.docker("service", "update", "--detach", "--quiet", "--no-resolve-image", *words, name)

    def make(self, kind: str, name: str, *words: str, input: str | None = None) -> None:
        """Create something else, such as a `network`, a `secret` or a `config`."""
        self._made.append((kind, name))
        self.docker(kind, "create", *words, input=input)

    def tasks(self, name: str) -> list[Task]:
        """All tasks of a service, including former ones.

        Raises:
            Unavailable: no manager answers.
        """
        api = self.cluster.swarm_leader().docker.api
        names = {node["ID"]: (node.get("Description") or {}).get("Hostname", "") for node in api.nodes()}
        return [_task(row, names) for row in api.tasks(filters={"service": name})]

    def inspect(self, name: str) -> dict[str, Any]:
        """A service, as of `docker service inspect`."""
        found: dict[str, Any] = self.cluster.swarm_leader().docker.api.inspect_service(name)
        return found

    def running(self, name: str) -> dict[str, int]:
        """The number of running tasks of a service, by node name."""
        counted: dict[str, int] = {}
        for task in self.tasks(name):
            if task.running:
                counted[task.node] = counted.get(task.node, 0) + 1
        return counted

    def containers(self, node: Node, name: str, *, ended: bool = False) -> list[str]:
        """The ids of a service's running containers on a node, as the node's own engine lists them.

        Args:
            ended: include containers that have exited.
        """
        which = ("--all",) if ended else ()
        label = f"label=com.docker.swarm.service.name={name}"
        return node.succeed(quoted("docker", "ps", *which, "--quiet", "--filter", label)).split()

    def wait_running(self, name: str, fits: int | Callable[[dict[str, int]], bool], *, timeout: float = 60) -> float:
        """Wait until a number of tasks run, or until `fits` accepts how many run on which node.

        Returns:
            Seconds that it took.
        """
        start = time.monotonic()

        def probe() -> None:
            running = self.running(name)
            if not (sum(running.values()) == fits if isinstance(fits, int) else fits(running)):
                problems = {task.problem for task in self.tasks(name) if task.wanted and task.problem}
                raise NotYet(f"running {running}; {'; '.join(problems)}")

        self.cluster.until(f"the tasks of {name}", probe, timeout=timeout, retry_on=docker_api.Unavailable)
        return round(time.monotonic() - start, 2)

    def remove_all(self) -> None:
        """Remove all that was created, newest first, and wait until no node has a container of it.

        Raises:
            ExceptionGroup: something could not be removed; all the rest is.
        """
        with UndoStack() as undo:
            undo.add("containers", self._wait_gone)
            for kind, name in self._made:
                undo.add(f"{kind} {name}", partial(self._remove, kind, name))
        self._made.clear()

    def _wait_gone(self) -> None:
        self.cluster.until("all containers to be gone", self._check_gone, timeout=60, retry_on=(NodeError,))

    def _check_gone(self) -> None:
        names = [name for kind, name in self._made if kind == "service"]
        for node in self.cluster.nodes:
            for name in names:
                if left := self.containers(node, name, ended=True):
                    raise NotYet(f"{len(left)} containers of {name} on {node.name}")

    def _remove(self, kind: str, name: str) -> None:
        """Remove one thing, trying again: tasks that are about to end may still use a network."""

        def probe() -> None:
            result = self.cluster.swarm_leader().execute(quoted("docker", kind, "rm", name))
            if result.status and "not found" not in result.stderr.lower() and "no such" not in result.stderr.lower():
                raise NotYet(result.stderr.strip())

        self.cluster.until(f"the {kind} {name} to be removed", probe, timeout=30, retry_on=(NodeError,))


def _task(row: dict[str, Any], names: dict[str, str]) -> Task:
    status = row["Status"]
    addresses = [address for network in row.get("NetworksAttachments") or () for address in network["Addresses"]]
    return Task(
        id=row["ID"],
        node=names.get(row.get("NodeID", ""), ""),
        state=status["State"],
        wanted=row["DesiredState"] in ("running", "ready"),
        container=(status.get("ContainerStatus") or {}).get("ContainerID", ""),
        problem=status.get("Err", ""),
        addresses=tuple(address.split("/")[0] for address in addresses),
    )
