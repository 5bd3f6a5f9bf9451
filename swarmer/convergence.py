"""What "converged" means, and looking whether it is so."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import consul

from swarmer.clients import consul_api, docker_api
from swarmer.cluster_node import Node
from swarmer.errors import NodeError
from swarmer.node.registry.records import LOCK
from swarmer.spec import Server, Spec, SwarmRole
from swarmer.wait import Hopeless, NotYet, until

#: Seconds between two looks for failed units while consul forms.
_FAILED_UNITS_INTERVAL = 2.0


class Cluster(Protocol):
    """What convergence is judged by; `swarmer.cluster.Cluster` has it."""

    spec: Spec
    nodes: list[Node]
    former_members: set[str]

    @property
    def name(self) -> str: ...

    @property
    def consul_servers(self) -> list[Node]: ...

    @property
    def slowness(self) -> float: ...

    @property
    def swarm_managers(self) -> list[Node]: ...


def wait_converged(
    cluster: Cluster,
    *,
    timeout: float,
    stall: float | None = None,
    moved: Callable[[], object] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Wait until the cluster is whole.

    Args:
        stall: seconds in which something new has to happen; see `swarmer.wait.Wait`.
        moved: a value that changes whenever something new happened.
        tell: receives what is still missing.

    Raises:
        GaveUp: it wasn't within `timeout` seconds; the text says what was missing last.
        Hopeless: a unit failed, or a node is dead; waiting on would not help.
    """
    until(
        f"{cluster.name} to converge",
        lambda: check_converged(cluster),
        timeout=timeout,
        interval=0.1,
        retry_on=(NodeError, *consul_api.Unavailable, *docker_api.Unavailable),
        stall=stall,
        moved=moved,
        tell=tell,
        slowness=cluster.slowness,
    )


def wait_consul(
    cluster: Cluster,
    *,
    timeout: float,
    stall: float | None = None,
    moved: Callable[[], object] = lambda: None,
    tell: Callable[[str], None],
) -> None:
    """Wait until consul alone is whole; the other planes may still be coming up.

    Args:
        stall, moved, tell: as for `wait_converged`.

    Raises:
        GaveUp: it wasn't within `timeout` seconds.
        Hopeless: a unit of consul failed on a node; waiting on would not help.
    """
    looked = time.monotonic()

    def probe() -> None:
        nonlocal looked
        try:
            check_consul(cluster)
        except (NotYet, *consul_api.Unavailable):
            # Now and then only: each look is a process on every node, which has enough to do.
            if time.monotonic() - looked > _FAILED_UNITS_INTERVAL * cluster.slowness:
                on_each(cluster.nodes, check_no_unit_failed)
                looked = time.monotonic()
            raise

    until(
        f"consul of {cluster.name}",
        probe,
        timeout=timeout,
        interval=0.05,
        retry_on=(NodeError, *consul_api.Unavailable),
        stall=stall,
        moved=moved,
        tell=tell,
        slowness=cluster.slowness,
    )


def check_converged(cluster: Cluster) -> None:
    """Look once whether every node booted clean, consul and the swarm have a leader and all their members, and the
    registry answers every node by its name.

    Raises:
        NotYet: something is missing, and may come.
        Hopeless: a unit failed, or a node is switched off.
    """
    for node in cluster.nodes:
        if not node.running:
            raise Hopeless(f"{node.name} is switched off")
    check_consul(cluster)
    check_registry(cluster)
    check_swarm(cluster)
    on_each(cluster.nodes, check_node)


def on_each(nodes: Sequence[Node], check: Callable[[Node], None]) -> None:
    """Check all nodes at the same time; the first error in their order is raised."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(check, nodes))


def check_no_unit_failed(node: Node) -> None:
    """Look once whether a unit failed on a node.

    Raises:
        Hopeless: one did.
    """
    listed = node.execute("systemctl list-units --plain --no-legend --state=failed").stdout
    if failed := [line.split()[0] for line in listed.splitlines() if line.strip()]:
        raise Hopeless(f"{node.name}: failed units: {' '.join(failed)}")


def check_node(node: Node) -> None:
    """Look once whether a node booted clean, by commands on the node.

    Raises:
        NotYet: cloud-init or a unit of ours is still at it, or the node finds no names of the cluster, or the
            registry doesn't answer it by its name.
        Hopeless: a unit failed.
    """
    spec = node.cluster.spec
    # One question to systemd, and none to the registry before the rest is well: for a slow node each is work.
    answer = node.execute(
        "test -e /run/cloud-init/result.json && echo done || echo running;"
        f"getent ahostsv4 consul.service.{spec.domain} >/dev/null && echo found || echo none;"
        "systemctl list-units --plain --no-legend"
    )
    cloud_init, names, *lines = answer.stdout.splitlines() or ["running", ""]
    units = {words[0]: words[2] for line in lines if len(words := line.split()) > 2}
    if failed := [unit for unit, state in units.items() if state == "failed"]:
        raise Hopeless(f"{node.name}: failed units: {' '.join(failed)}")
    if cloud_init != "done":
        raise NotYet(f"{node.name}: cloud-init is running")
    ours = {unit: state for unit, state in units.items() if unit.startswith(("consul", "swarmer"))}
    busy = [unit for unit, state in ours.items() if state in ("activating", "deactivating")]
    if ours.get("swarmer.target") != "active" or busy:
        raise NotYet(f"{node.name}: swarmer.target is {ours.get('swarmer.target')}, busy with {busy or 'nothing'}")
    if names != "found":
        raise NotYet(f"{node.name}: no names of the cluster are found")
    registry = node.execute(
        # To curl, a colon in a path begins a password.
        f"cd /etc/docker/certs.d/{spec.registry_host} &&"
        f" curl --silent --max-time {node.scaled(5):.0f} --cacert ca.crt --cert client.cert --key client.key"
        f" --output /dev/null --write-out '%{{http_code}}' https://{spec.registry_host}/v2/_catalog?n=1"
    ).stdout
    if registry != "200":
        raise NotYet(f"{node.name}: the registry answers {registry} by its name")


def check_consul(cluster: Cluster) -> None:
    """Look once whether consul has a leader, all its voters, and all members alive.

    Raises:
        NotYet: something is missing.
    """
    api = reachable_server(cluster)
    peers = consul_api.raft_peers(api)
    expected = {server.name for server in cluster.spec.consul_servers}
    voters = {peer.name for peer in peers if peer.voter}
    if not any(peer.leader for peer in peers):
        raise NotYet(f"no leader, {len(voters)} of {len(expected)} voters")
    if voters != expected or len(peers) != len(expected):
        raise NotYet(f"peers {sorted(peer.name for peer in peers)}, voters {sorted(voters)}")
    alive = consul_api.members_alive(api)
    if absent := {node.name for node in cluster.nodes} - alive:
        raise NotYet(f"members not alive: {', '.join(sorted(absent))}")
    if former := consul_api.former_nodes(api):
        raise NotYet(f"the catalog has the former {', '.join(former)}")


def check_registry(cluster: Cluster) -> None:
    """Look once whether all nodes of the registry are healthy, and one of them leads it; in a bucket, all may write.

    Raises:
        NotYet: something is missing.
    """
    api = reachable_server(cluster)
    _, entries = api.health.service("registry", passing=True)
    expected = {server.name for server in cluster.spec.registry_nodes}
    if absent := expected - {entry["Node"]["Node"] for entry in entries}:
        raise NotYet(f"the registry is not healthy on {', '.join(sorted(absent))}")
    if cluster.spec.registry.storage == "filesystem":
        registry_leader(cluster)


def registry_leader(cluster: Cluster) -> str:
    """The name of the node that leads the registry.

    Raises:
        NotYet: nobody leads it.
    """
    _, lock = reachable_server(cluster).kv.get(LOCK, consistency="consistent")
    if not (lock and lock.get("Session")):
        raise NotYet("the registry has no leader")
    return str(json.loads(lock["Value"])["name"])


def check_swarm(cluster: Cluster) -> None:
    """Look once whether the swarm has a leader, and exactly the nodes of the spec, each ready and in its role.

    Raises:
        NotYet: something is missing, or too much.
    """
    members = swarm_members(cluster)
    if unnamed := [f"{member.id} ({member.state})" for member in members if not member.name]:
        raise NotYet(f"the swarm has entries that never reported a host name: {', '.join(unnamed)}")
    if sorted(member.name for member in members) != sorted(node.name for node in cluster.nodes):
        raise NotYet(f"the swarm has the nodes {', '.join(sorted(member.name for member in members))}")
    if not any(member.leader for member in members):
        raise NotYet("the swarm has no leader")
    for member in members:
        if member.id in cluster.former_members:
            raise NotYet(f"in the swarm, {member.name} is the one that was replaced")
        if flaw := _swarm_flaw(member, cluster.spec.server(member.name)):
            raise NotYet(f"in the swarm, {member.name} is {flaw}")
    _, rows = reachable_server(cluster).health.service("swarm", passing=True)
    announced = {row["Node"]["Node"] for row in rows}
    if absent := {server.name for server in cluster.spec.managers} - announced:
        raise NotYet(f"consul doesn't know of the swarm's manager {', '.join(sorted(absent))}")
    if not any("leader" in row["Service"]["Tags"] for row in rows):
        raise NotYet("consul doesn't know of the swarm's leader")


def _swarm_flaw(member: docker_api.Member, server: Server) -> str:
    """What is not as it should be with a node of the swarm; empty when all is well."""
    availability = "drain" if server.swarm is SwarmRole.MANAGER else "active"
    role = "worker" if server.swarm is SwarmRole.AGENT else "manager"
    if member.state != "ready":
        return member.state
    if member.manager is not (role == "manager"):
        return f"no {role}"
    if member.reachability not in ("", "reachable"):
        return member.reachability
    if member.availability != availability:
        return f"{member.availability}, not {availability}"
    missing = {name: value for name, value in server.node_labels.items() if member.labels.get(name) != value}
    return f"without the labels {missing}" if missing else ""


def swarm_members(cluster: Cluster) -> list[docker_api.Member]:
    """The nodes of the swarm, as the first manager with a quorum tells them.

    Raises:
        NotYet: no manager answers, or none has a quorum.
    """
    last = "no manager of the swarm is running"
    for node in cluster.swarm_managers:
        if node.running:
            try:
                return docker_api.members(node.docker)
            except docker_api.Unavailable as error:
                last = f"{node.name}: {docker_api.reason(error)}"
    raise NotYet(last)


def swarm_ids(cluster: Cluster) -> dict[str, str]:
    """Node name to the id in the swarm that the node recorded of itself last; empty for one that recorded none.

    Raises:
        NotYet: no consul server knows a leader.
        Unavailable: it doesn't answer.
    """
    _, entries = reachable_server(cluster).kv.get("swarm/nodes/", recurse=True)
    recorded = {
        entry["Key"].rpartition("/")[2]: (entry["Value"] or b"").decode(errors="replace") for entry in entries or ()
    }
    return {node.name: recorded.get(node.name, "").partition(" ")[0] for node in cluster.nodes}


def reachable_server(cluster: Cluster) -> consul.Consul:
    """A client of the first consul server that knows a leader.

    Raises:
        NotYet: no server answers, or none knows a leader.
    """
    last = "no server is running"
    for node in cluster.consul_servers:
        if not node.running:
            continue
        try:
            if node.consul.status.leader():
                return node.consul
            last = f"{node.name} knows no leader"
        except consul_api.Unavailable as error:
            last = f"{node.name}: {type(error).__name__}"
    raise NotYet(last)
