"""What the leader keeps in order: labels, what consul knows of the swarm, and that no node is there twice."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from swarmer.node.swarm.engine import Engine, EngineError, SwarmNode
from swarmer.node.swarm.store import Known, Records, Store

#: Docker's words for the two roles.
_WORKER: Final = "worker"
_MANAGER: Final = "manager"

Labels = Mapping[str, Mapping[str, str]]


def keep(engine: Engine, store: Store, records: Records, nodes: Sequence[SwarmNode], labels: Labels) -> bool:
    """Do what is to be done; whether something is left that takes a moment.

    Args:
        labels: node name to the labels that it has by the spec.
    """
    for node, wanted in unlabelled(nodes, labels):
        engine.change(node, Labels=wanted)
    tokens = {role.lower(): token for role, token in engine.swarm()["JoinTokens"].items()}
    if tokens != records.tokens:
        store.record_tokens(tokens)
    former = replaced(nodes)
    present = {name(node): Known(node["ID"], is_down(node)) for node in nodes if name(node) and node not in former}
    if present != records.members:
        store.record_members(records.members, present)
    left = False
    for node in former:
        left = True
        try:
            forget(engine, node)
        except EngineError as error:
            print(f"the former {name(node)} is not forgotten yet: {error}", flush=True)
    return left


def unlabelled(nodes: Iterable[SwarmNode], labels: Labels) -> list[tuple[SwarmNode, dict[str, str]]]:
    """The nodes that lack a label of the spec, each with all labels that it is to have; others' labels stay."""
    found = []
    for node in nodes:
        present = node["Spec"].get("Labels") or {}
        wanted = {**present, **labels.get(name(node), {})}
        if wanted != present:
            found.append((node, wanted))
    return found


def replaced(nodes: Iterable[SwarmNode]) -> list[SwarmNode]:
    """The entries of nodes whose disk is gone: a node of the same name joined later."""
    newest: dict[str, SwarmNode] = {}
    for node in nodes:
        other = newest.get(name(node))
        if other is None or _age(node) > _age(other):
            newest[name(node)] = node
    return [node for node in nodes if name(node) and node is not newest[name(node)]]


def forget(engine: Engine, node: SwarmNode) -> None:
    """Take a node out of the swarm, and out of the managers' raft first if it is in there."""
    if "ManagerStatus" not in node:
        print(f"{name(node)} was replaced: its former self is forgotten", flush=True)
        engine.remove(node)
    elif node["Spec"]["Role"] == _MANAGER:
        print(f"{name(node)} was replaced: its former self is no manager any more", flush=True)
        engine.change(node, Role=_WORKER)


def name(node: SwarmNode) -> str:
    """Its host name; empty while it has only just joined."""
    return (node.get("Description") or {}).get("Hostname") or ""


def is_down(node: SwarmNode) -> bool:
    """Whether the managers miss its signs of life."""
    return bool(node["Status"]["State"] == "down")


def may_leave(own: SwarmNode, nodes: Iterable[SwarmNode]) -> bool:
    """Whether a manager that counts as down, though it is up, can leave without harm: when the others have a quorum
    without it, and no other one in its state comes first. All managers see the same nodes, so one leaves at a time.
    """
    managers = [node for node in nodes if "ManagerStatus" in node]
    others = [node for node in managers if node["ID"] != own["ID"] and _is_reachable(node)]
    first = all(name(own) < name(other) for other in others if is_down(other))
    return first and len(others) > len(managers) // 2


def _is_reachable(manager: SwarmNode) -> bool:
    return bool(manager["ManagerStatus"]["Reachability"] == "reachable")


def _age(node: SwarmNode) -> str:
    created: str = node["CreatedAt"]
    return created
