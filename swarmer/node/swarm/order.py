"""What the leader keeps in order: labels, what consul knows of the swarm, and that no node is there twice."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from swarmer.node.swarm.engine import Engine, EngineError, SwarmNode
from swarmer.node.swarm.store import Known, Records, Store

#: Docker's words for the two roles.
_WORKER: Final = "worker"
_MANAGER: Final = "manager"

#: The nodes of the spec by name: each one's `ip`, `role` in docker's words, and `labels`.
Plan = Mapping[str, Mapping[str, Any]]


def keep(engine: Engine, store: Store, records: Records, nodes: Sequence[SwarmNode], plan: Plan) -> bool:
    """Do what is to be done; whether something is left that takes a moment."""
    for node, wanted in unlabelled(nodes, plan):
        engine.change(node, Labels=wanted)
    tokens = {role.lower(): token for role, token in engine.swarm()["JoinTokens"].items()}
    if tokens != records.tokens:
        store.record_tokens(tokens)
    former = replaced(nodes, plan)
    genuine = [node for node in nodes if is_genuine(node, plan) and node not in former]
    present = {name(node): Known(node["ID"], is_down(node)) for node in genuine}
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


def is_genuine(node: SwarmNode, plan: Plan) -> bool:
    """Whether it is the node of the spec that it says it is.

    A node tells its name itself, and one that was taken over may tell another's. Where it stands is what the managers
    see of its connection.
    """
    return name(node) in plan and _address(node) == plan[name(node)]["ip"]


def unlabelled(nodes: Iterable[SwarmNode], plan: Plan) -> list[tuple[SwarmNode, dict[str, str]]]:
    """The nodes that lack a label of the spec, each with all labels that it is to have; others' labels stay."""
    found = []
    for node in nodes:
        present = node["Spec"].get("Labels") or {}
        wanted = {**present, **(plan[name(node)]["labels"] if is_genuine(node, plan) else {})}
        if wanted != present:
            found.append((node, wanted))
    return found


def replaced(nodes: Iterable[SwarmNode], plan: Plan) -> list[SwarmNode]:
    """All entries of a name but one: those of nodes whose disk is gone, and of who only says that it has the name.

    Which one stays: who stands where the spec says, in the role that the spec says, is up, and joined last. When each
    joined is by the clock of the manager that led then, so it comes last.
    """

    def rank(node: SwarmNode) -> tuple[bool, bool, bool, str]:
        genuine = is_genuine(node, plan)
        in_role = genuine and node["Spec"]["Role"] == plan[name(node)]["role"]
        return genuine, in_role, not is_down(node), node["CreatedAt"]

    best: dict[str, SwarmNode] = {}
    for node in nodes:
        if name(node) not in best or rank(node) > rank(best[name(node)]):
            best[name(node)] = node
    return [node for node in nodes if name(node) and node is not best[name(node)]]


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


def _address(node: SwarmNode) -> str:
    """Where the managers see it; empty while it has only just joined."""
    manager: str = (node.get("ManagerStatus") or {}).get("Addr") or ""
    seen: str = node["Status"].get("Addr") or ""
    return manager.rpartition(":")[0] or seen
