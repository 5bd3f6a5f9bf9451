"""On which node a container that is run by hand ends up: the least loaded one that it fits."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.commands import docker as docker_cli
from swarmer.errors import SwarmerError
from swarmer.spec import SwarmRole

_CONSTRAINT: Final = re.compile(r"constraint:(?P<key>[^=!]+)(?P<sign>==|!=)(?P<value>.*)")


@dataclass(frozen=True)
class Constraint:
    """What a node must be, or must not: the classic swarm's `-e constraint:KEY==VALUE`.

    Attributes:
        key: `node` for its name, else one of its labels in the swarm, as `servers.yml` makes them.
        equal: whether the value is asked for, or ruled out.
    """

    key: str
    value: str
    equal: bool

    def admits(self, node: Node) -> bool:
        """Whether a container may run on this node."""
        found = node.name if self.key == "node" else node.server.node_labels.get(self.key)
        return (found == self.value) is self.equal


def split_constraints(arguments: Sequence[str]) -> tuple[list[str], list[Constraint]]:
    """The arguments of `run` without those that tell where to run, and these.

    They are given as `-e constraint:KEY==VALUE` or `--env=constraint:KEY!=VALUE`.
    """
    rest: list[str] = []
    constraints = []
    for argument in arguments:
        option, _, joined = argument.partition("=") if argument.startswith("--env=") else ("", "", argument)
        found = _CONSTRAINT.fullmatch(joined)
        if found and (option or rest[-1:] in (["-e"], ["--env"])):
            if not option:
                rest.pop()
            constraints.append(Constraint(found["key"], found["value"], found["sign"] == "=="))
        else:
            rest.append(argument)
    return rest, constraints


def least_loaded(cluster: Cluster, constraints: Sequence[Constraint] = ()) -> Node:
    """The node with the fewest running containers per processor, of those that run any and meet the constraints.

    Raises:
        SwarmerError: no such node answers.
    """
    active = _active(cluster)
    fitting = [
        node
        for node in cluster.nodes
        if node.name in active and all(constraint.admits(node) for constraint in constraints)
    ]
    loads: dict[Node, float] = {}
    for node, said in docker_cli.on_each(fitting, _info).items():
        if said.status == 0:
            containers, processors = json.loads(said.stdout)
            loads[node] = containers / processors
    if not loads:
        raise SwarmerError(
            f"no node of {cluster.name} can run this: fitting are {', '.join(n.name for n in fitting) or 'none'}",
            hint=f"`swarmer docker {cluster.name} node ls` tells which nodes are up and active",
        )
    return min(loads, key=lambda node: loads[node])


def _info(node: Node) -> docker_cli.Output:
    return docker_cli.output(node, ["info", "--format", "[{{.ContainersRunning}}, {{.NCPU}}]"])


def _active(cluster: Cluster) -> set[str]:
    """The nodes that run tasks, as a manager knows it; without one, by their roles in the spec.

    Whether they are up is asked of themselves: after an election, a manager knows that of none for a while.
    """
    said = docker_cli.output(docker_cli.manager(cluster), ["node", "ls", "--format", "{{json .}}"])
    if said.status == 0:
        rows = [json.loads(line) for line in said.stdout.splitlines()]
        return {row["Hostname"] for row in rows if row["Availability"] == "Active"}
    return {node.name for node in cluster.nodes if node.server.swarm is not SwarmRole.MANAGER}
