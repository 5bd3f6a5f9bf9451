"""Choosing the node for `swarmer docker run`: the least loaded one that meets the constraints."""

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
    """A constraint of the classic swarm, `-e constraint:KEY==VALUE`.

    Attributes:
        key: `node` for the node's name, otherwise one of its labels in the swarm.
        equal: True for `==`, False for `!=`.
    """

    key: str
    value: str
    equal: bool

    def admits(self, node: Node) -> bool:
        """Whether a container may run on this node."""
        found = node.name if self.key == "node" else node.server.node_labels.get(self.key)
        return (found == self.value) is self.equal


def split_constraints(arguments: Sequence[str]) -> tuple[list[str], list[Constraint]]:
    """Split the arguments of `run` into those for docker, and the constraints.

    Constraints are given as `-e constraint:KEY==VALUE` or `--env=constraint:KEY!=VALUE`.
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
    """The node with the fewest running containers per processor, among active nodes that meet the constraints.

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
    for node, info in docker_cli.on_each(fitting, _info).items():
        if info.status == 0:
            containers, processors = json.loads(info.stdout)
            loads[node] = containers / processors
    if not loads:
        raise SwarmerError(
            f"no node of {cluster.name} can run this; suitable: {', '.join(n.name for n in fitting) or 'none'}",
            hint=f"`swarmer docker {cluster.name} node ls` shows which nodes are up and active",
        )
    return min(loads, key=lambda node: loads[node])


def _info(node: Node) -> docker_cli.Output:
    return docker_cli.output(node, ["info", "--format", "[{{.ContainersRunning}}, {{.NCPU}}]"])


def _active(cluster: Cluster) -> set[str]:
    """The names of the nodes that run tasks, according to a manager; without a quorum, according to the spec.

    A manager's view of which nodes are up is not used: after an election, it is unknown for a while.
    """
    listing = docker_cli.output(docker_cli.manager(cluster), ["node", "ls", "--format", "{{json .}}"])
    if listing.status == 0:
        rows = [json.loads(line) for line in listing.stdout.splitlines()]
        return {row["Hostname"] for row in rows if row["Availability"] == "Active"}
    return {node.name for node in cluster.nodes if node.server.swarm is not SwarmRole.MANAGER}
