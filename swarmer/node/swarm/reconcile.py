"""What the leader changes in the swarm, and when. Without I/O.

An entry of the swarm is matched to a node by its id alone, which the node itself records (`records.Identity`). Host
names and addresses are what docker shows of an entry at the moment; in the second after an election it may show a
manager under the name of a worker. So nothing is decided by a name that a recorded id contradicts, and nothing is
taken out of the swarm that wasn't superfluous for a while. docs/swarm.md has the rules.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from swarmer.node.slowness import scaled
from swarmer.node.swarm.engine import SwarmNode
from swarmer.node.swarm.records import Identity, Known, Records

#: Docker's words for the two roles.
WORKER: Final = "worker"
MANAGER: Final = "manager"

#: A manager of the spec with the label `swarmer.role=worker` stays a worker when it is demoted by hand.
HELD_ROLE: Final = "swarmer.role"

#: Seconds between two looks after which no observation counts as continuous.
BREAK: Final = scaled(5.0)

#: The nodes of the spec by name: each one's `ip`, `role` and `availability` in docker's words, and `labels`.
Plan = Mapping[str, Mapping[str, Any]]


class Kind(Enum):
    """What may be wrong with an entry, the seconds for which it has to be so, and the text for the journal."""

    #: A few looks are enough: the node itself has recorded it, and a replacement isn't over before it is removed.
    FORMER = scaled(0.3), "is the former self of a node that joined again under another id"
    #: Longer than docker takes to count a dead node as down: a node that is just joining, and hasn't recorded its id
    #: yet, must not be removed instead of the superfluous one.
    NAMESAKE = scaled(10.0), "has the host name of a node that is up under another id"
    FOREIGN = scaled(30.0), "isn't a node of the cluster"
    #: Left behind by a join that docker gave up and tried again.
    UNNAMED = 180.0, "never reported a host name"
    #: Long enough to remove a node by hand: first `docker node demote`, then `docker node rm`.
    DEMOTED = scaled(10.0), "is a manager of the cluster, but a worker in the swarm"
    #: No action: the node may be about to record its id.
    UNRECORDED = float("inf"), "hasn't recorded its id"

    def __init__(self, seconds: float, text: str) -> None:
        self.seconds = seconds
        self.text = text


#: What makes an entry superfluous.
SUPERFLUOUS: Final = (Kind.FORMER, Kind.NAMESAKE, Kind.FOREIGN, Kind.UNNAMED)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the entry of this id."""

    node: str
    kind: Kind


@dataclass(frozen=True)
class Update:
    """Change an entry: `Labels`, `Role` or `Availability`, in docker's words."""

    node: SwarmNode
    changes: Mapping[str, object]
    reason: str = ""


@dataclass(frozen=True)
class Promote:
    """Make the node of this name a manager again."""

    node: SwarmNode
    name: str


@dataclass(frozen=True)
class Remove:
    """Remove the entry of a node that isn't a manager."""

    node: SwarmNode
    reason: str


Action = Update | Promote | Remove


class Reconciler:
    """What one leader has observed continuously, and the actions that follow."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._since: dict[Finding, float] = {}
        self._looked = float("-inf")

    def look(self, nodes: Sequence[SwarmNode], records: Records, now: float) -> list[Action]:
        """The actions that are due.

        Args:
            nodes: the entries of the swarm, as the leader's docker shows them.
            now: seconds of a clock that never goes back.
        """
        if now - self._looked > BREAK:
            self._since = {}
        self._looked = now
        recorded = {owner: identity for owner, identity in records.nodes.items() if owner in self._plan}
        found = findings(nodes, self._plan, recorded)
        self._since = {finding: self._since.get(finding, now) for finding in found}
        due = {
            finding.node: finding.kind for finding, since in self._since.items() if now - since >= finding.kind.seconds
        }
        by_id = {node["ID"]: node for node in nodes}
        owners = owners_of(recorded)
        actions: list[Action] = []
        for node in nodes:
            if owner := owners.get(node["ID"]):
                actions += _as_planned(node, self._plan[owner])
                if due.get(node["ID"]) is Kind.DEMOTED:
                    actions.append(Promote(node, owner))
        return actions + removals([(by_id[node], kind) for node, kind in due.items() if kind in SUPERFLUOUS], nodes)

    def pause(self, now: float, *, calm: float) -> float:
        """Seconds until the next look: soon while something new is seen, or will be due before `calm` is over."""
        waits = [calm]
        for finding, since in self._since.items():
            seen = now - since
            if seen < Kind.NAMESAKE.seconds:
                waits.append(0.1 if seen < 1 else 0.3)
            elif seen < finding.kind.seconds < float("inf"):
                waits.append(max(0.3, finding.kind.seconds - seen))
        return min(waits)


def findings(nodes: Sequence[SwarmNode], plan: Plan, recorded: Mapping[str, Identity]) -> list[Finding]:
    """What is wrong with the entries of the swarm, by one look; at most one finding for each.

    Args:
        recorded: what the nodes of the plan recorded of themselves, by name.
    """
    present = {identity.node for identity in recorded.values()}
    successors = {node: identity.node for identity in recorded.values() for node in identity.former}
    owners = owners_of(recorded)
    up = {node["ID"] for node in nodes if node["Status"]["State"] == "ready"}
    found = []
    for node in nodes:
        identity, host = node["ID"], name(node)
        if identity in present:
            if identity in owners and _is_demoted(node, plan[owners[identity]]):
                found.append(Finding(identity, Kind.DEMOTED))
        elif identity in successors:
            # With a disk that was put back, a node has a former id again, until it has recorded it.
            is_succeeded = successors[identity] in up
            found.append(Finding(identity, Kind.FORMER if is_succeeded else Kind.UNRECORDED))
        elif not host:
            found.append(Finding(identity, Kind.UNNAMED))
        elif host not in plan:
            found.append(Finding(identity, Kind.FOREIGN))
        elif host in recorded and recorded[host].node in up:
            found.append(Finding(identity, Kind.NAMESAKE))
        else:
            found.append(Finding(identity, Kind.UNRECORDED))
    return found


def owners_of(recorded: Mapping[str, Identity]) -> dict[str, str]:
    """Id to the name of the node that recorded it; an id that several nodes have recorded has no owner."""
    counted = Counter(identity.node for identity in recorded.values())
    return {identity.node: owner for owner, identity in recorded.items() if counted[identity.node] == 1}


def members(nodes: Iterable[SwarmNode], recorded: Mapping[str, Identity]) -> dict[str, Known]:
    """The leader's view of each node whose recorded id is in the swarm."""
    owners = owners_of(recorded)
    return {owners[node["ID"]]: Known(node["ID"], is_down(node)) for node in nodes if node["ID"] in owners}


def without_state(nodes: Iterable[SwarmNode], records: Records) -> list[str]:
    """The nodes that are recorded to hold the swarm's state, but are workers: docker removed it with their role."""
    owners = owners_of(records.nodes)
    workers = (node for node in nodes if node["Spec"]["Role"] == WORKER and "ManagerStatus" not in node)
    return [owner for node in workers if (owner := owners.get(node["ID"])) and owner in records.managers]


def removals(superfluous: Iterable[tuple[SwarmNode, Kind]], nodes: Iterable[SwarmNode]) -> list[Action]:
    """The removal of superfluous entries: a manager is demoted first, one at a time; the next look removes it."""
    actions: list[Action] = []
    demoting = False
    for node, kind in superfluous:
        if node["Spec"]["Role"] == MANAGER and "ManagerStatus" in node:
            if not demoting and spares(node, nodes):
                actions.append(Update(node, {"Role": WORKER}, kind.text))
                demoting = True
        elif "ManagerStatus" not in node:
            actions.append(Remove(node, kind.text))
    return actions


def spares(manager: SwarmNode, nodes: Iterable[SwarmNode]) -> bool:
    """Whether the other managers are a quorum without this one, and it doesn't lead."""
    others = [node for node in nodes if "ManagerStatus" in node and node["ID"] != manager["ID"]]
    reachable = sum(map(_is_reachable, others))
    return reachable > len(others) // 2 and not manager["ManagerStatus"].get("Leader")


def may_leave(own: SwarmNode, nodes: Iterable[SwarmNode]) -> bool:
    """Whether a manager that counts as down, though it is up, can leave without harm: when the others have a quorum
    without it, and no other one in its state comes first. All managers see the same nodes, so one leaves at a time.
    """
    managers = [node for node in nodes if "ManagerStatus" in node]
    others = [node for node in managers if node["ID"] != own["ID"] and _is_reachable(node)]
    first = all(own["ID"] < other["ID"] for other in others if is_down(other))
    return first and len(others) > len(managers) // 2


def is_swarm_of(nodes: Iterable[SwarmNode], plan: Plan) -> bool:
    """Whether most managers of the spec manage this swarm, and can be reached: there is no other one like it."""
    places = {_address(node) for node in nodes if "ManagerStatus" in node and _is_reachable(node)}
    planned = {each["ip"] for each in plan.values() if each["role"] == MANAGER}
    return len(places & planned) > len(planned) // 2


def name(node: SwarmNode) -> str:
    """The host name that docker shows at the moment; empty while the node is joining."""
    return (node.get("Description") or {}).get("Hostname") or ""


def is_down(node: SwarmNode) -> bool:
    """Whether the managers miss its heartbeats."""
    return bool(node["Status"]["State"] == "down")


def _as_planned(node: SwarmNode, planned: Mapping[str, Any]) -> list[Action]:
    """Labels of the spec are added, other labels are kept. A node that lacks some has just joined, so its availability
    is set as well; a later availability was set by hand.
    """
    labels = node["Spec"].get("Labels") or {}
    if (wanted := {**labels, **planned["labels"]}) == labels:
        return []
    return [Update(node, {"Labels": wanted, "Availability": planned["availability"]})]


def _is_demoted(node: SwarmNode, planned: Mapping[str, Any]) -> bool:
    """Whether a manager of the spec is a worker, without the label that keeps it one.

    Also while it counts as down, as it does for some seconds after it was demoted: it counts as a manager only once it
    has joined the others.
    """
    role, labels = node["Spec"]["Role"], node["Spec"].get("Labels") or {}
    demoted = planned["role"] == MANAGER and role == WORKER and "ManagerStatus" not in node
    return demoted and labels.get(HELD_ROLE) != WORKER


def _is_reachable(manager: SwarmNode) -> bool:
    return bool(manager["ManagerStatus"]["Reachability"] == "reachable")


def _address(manager: SwarmNode) -> str:
    """Where the other managers reach it."""
    address: str = manager["ManagerStatus"]["Addr"]
    return address.rpartition(":")[0]
