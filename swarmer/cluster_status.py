"""The state of clusters, as plain values: for the tables and the JSON of the command line."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from swarmer import convergence
from swarmer.clients import consul_api, docker_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import NodeError, PromiseBroken, SwarmerError
from swarmer.ledger import Ledger, Ownership
from swarmer.pool import Pool
from swarmer.stacks import stack_of
from swarmer.state import ClusterHome, cluster_homes
from swarmer.wait import NotYet

#: The numbers of serf's member states, as consul's API gives them.
_MEMBER: Final = {1: "alive", 2: "leaving", 3: "left", 4: "failed"}

#: What a cluster that is booting, broken or partly removed may raise. OSError: its certificates are missing.
_NOT_WELL = (PromiseBroken, NotYet, SwarmerError, *consul_api.Unavailable, *docker_api.Unavailable, OSError)


class State(StrEnum):
    """Whether a cluster is in use.

    Attributes:
        RUNNING: a living process owns it.
        KEPT: no process owns it, but it was to be kept.
        BROKEN: a scenario broke it.
        DEAD_OWNER: the process that owned it is dead; `swarmer gc` removes it.
        UNREADABLE: its ledger can't be read.
    """

    RUNNING = "running"
    KEPT = "kept"
    BROKEN = "broken"
    DEAD_OWNER = "dead owner"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ClusterSummary:
    """A cluster of this machine, as its ledger and the host describe it; no node is asked.

    Attributes:
        cluster: `STACK:DC`.
        nodes: the names of its nodes, in the order of the spec.
        running: how many of them are switched on.
        admin_network: as in `192.168.112.0/24`.
        image: the id of the image that its nodes run.
        owner_pid: the living process that owns it.
        problem: which scenario broke it, or why its ledger can't be read.
    """

    cluster: str
    state: State
    nodes: tuple[str, ...] = ()
    running: int = 0
    admin_network: str = ""
    image: str = ""
    owner_pid: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class NodeStatus:
    """A node, as it is now; None stands for unknown.

    Attributes:
        consul: its role, `server` or `agent`.
        swarm: its role, `manager`, `agent` or `both`.
        running: whether the machine is switched on.
        cloud_init: `running`, `done` or `failed`.
        member: its state in consul's gossip, `alive`, `leaving`, `left` or `failed`.
        leader: whether it leads consul.
        voter: whether it votes in consul.
        memory_bytes: the memory that it uses.
    """

    name: str
    ip: str
    consul: str
    swarm: str
    running: bool
    cloud_init: str | None
    member: str | None
    leader: bool | None
    voter: bool | None
    memory_bytes: int | None


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster, as it is now.

    Attributes:
        healthy: it has converged, and its CA can be used for new nodes.
        problem: why it has not converged, one sentence; empty if it is healthy.
        certificates_end: the time at which all certificates have expired, as of ISO 8601; None stands for unknown.
    """

    cluster: str
    state: State
    image: str
    owner_pid: int | None
    healthy: bool
    problem: str
    certificates_end: str | None
    nodes: tuple[NodeStatus, ...]


def listing() -> Iterator[ClusterSummary]:
    """Every cluster of this machine, sorted by name."""
    for home in cluster_homes():
        try:
            ledger = Ledger.load(home)
            names = tuple(server.name for server in ledger.spec.servers)
            running = sum(map(stack_of(ledger).running, names))
        except SwarmerError as error:
            if home.ledger.exists():  # if not, the cluster was removed meanwhile
                yield ClusterSummary(home.name, State.UNREADABLE, problem=error.message)
            continue
        state, owner = _state(ledger)
        yield ClusterSummary(
            home.name,
            state,
            names,
            running,
            str(ledger.spec.admin_network),
            ledger.image,
            owner,
            ledger.broken,
        )


def look(cluster: Cluster) -> ClusterStatus:
    """The current state of a cluster, whatever it is."""
    problem = ""
    try:
        convergence.check_converged(cluster)
    except _NOT_WELL as error:
        problem = str(error) or type(error).__name__  # some have no text, such as socket.timeout
    members, peers = _consul(cluster)

    def node_status(node: Node) -> NodeStatus:
        running = node.running
        return NodeStatus(
            name=node.name,
            ip=str(node.ip),
            consul=str(node.server.consul),
            swarm=str(node.server.swarm),
            running=running,
            cloud_init=_cloud_init(node) if running else None,
            member=members.get(node.name),
            leader=any(peer.leader for peer in peers if peer.name == node.name) if peers else None,
            voter=any(peer.voter for peer in peers if peer.name == node.name) if peers else None,
            memory_bytes=cluster.stack.memory(node.name) if running else None,
        )

    with Pool(len(cluster.nodes)) as pool:
        nodes = tuple(pool.map(node_status, cluster.nodes))
    end, no_ca = _certificates(cluster)
    problem = no_ca or problem
    state, owner = _state(cluster.ledger)
    return ClusterStatus(cluster.name, state, cluster.ledger.image, owner, not problem, problem, end, nodes)


def living() -> list[ClusterHome]:
    """The clusters that a living process owns, that were kept, or that a scenario broke."""
    dead = (State.DEAD_OWNER, State.UNREADABLE)
    return [ClusterHome(*row.cluster.split(":")) for row in listing() if row.state not in dead]


def _state(ledger: Ledger) -> tuple[State, int | None]:
    owner = Ownership(ledger.home).holder()
    if ledger.broken:
        return State.BROKEN, owner
    if owner is not None:
        return State.RUNNING, owner
    return State.KEPT if ledger.kept else State.DEAD_OWNER, None


def _certificates(cluster: Cluster) -> tuple[str | None, str]:
    """When all certificates will have ended; or None, and why the CA can't be used."""
    try:
        return cluster.authority.end.isoformat(), ""
    except SwarmerError as error:
        return None, str(error)


def _cloud_init(node: Node) -> str | None:
    try:
        errors = node.cloud_init_errors()
    except NodeError:
        return None
    return "running" if errors is None else "failed" if errors else "done"


def _consul(cluster: Cluster) -> tuple[dict[str, str], list[consul_api.Peer]]:
    """The members' states by name, and the raft peers, as a server with a leader sees them; empty without one."""
    try:
        api = convergence.reachable_server(cluster)
        members = {row["Name"]: _MEMBER.get(row["Status"], "unknown") for row in api.agent.members()}
        return members, consul_api.raft_peers(api)
    except _NOT_WELL:
        return {}, []
