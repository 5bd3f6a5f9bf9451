"""What "converged" means, and how it is checked."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import consul

from swarmer.clients import consul_api, docker_api
from swarmer.cluster_node import Node
from swarmer.errors import NodeError
from swarmer.node.registry.records import LOCK
from swarmer.pool import Pool
from swarmer.spec import Server, Spec, SwarmRole
from swarmer.wait import Hopeless, NotYet, until

#: Seconds between two checks for failed units while consul forms.
_FAILED_UNITS_INTERVAL = 2.0


class Cluster(Protocol):
    """What the checks need from a cluster; implemented by `swarmer.cluster.Cluster`."""

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
    """Wait until the cluster has converged.

    Args:
        stall: seconds within which something new must happen; see `swarmer.wait.until`.
        moved: returns a value that changes whenever something new has happened.
        tell: receives what is still missing.

    Raises:
        GaveUp: it did not converge within `timeout` seconds; the text names what was still missing.
        Hopeless: a unit failed, or a node is switched off; waiting longer would not help.
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
    """Wait until consul has converged; the other planes may still be starting.

    Args:
        stall, moved, tell: as for `wait_converged`.

    Raises:
        GaveUp: it did not converge within `timeout` seconds.
        Hopeless: a unit failed on a node; waiting longer would not help.
    """
    looked = time.monotonic()

    def probe() -> None:
        nonlocal looked
        try:
            check_consul(cluster)
        except (NotYet, *consul_api.Unavailable):
            # Only every few seconds, because each check runs a process on every node, and they are busy booting.
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
    """Check once that every node has booted without errors, that consul and the swarm have a leader and all their
    members, and that the registry answers every node under its name.

    Raises:
        NotYet: something is still missing.
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
    """Check all nodes in parallel; the error of the first failing node, in their order, is raised."""
    with Pool(len(nodes)) as pool:
        pool.map(check, nodes)


def check_no_unit_failed(node: Node) -> None:
    """Check once that no unit has failed on a node.

    Raises:
        Hopeless: a unit has failed.
    """
    listed = node.execute("systemctl list-units --plain --no-legend --state=failed").stdout
    if failed := [line.split()[0] for line in listed.splitlines() if line.strip()]:
        raise Hopeless(f"{node.name}: failed units: {' '.join(failed)}")


def check_node(node: Node) -> None:
    """Check once that a node has booted without errors, by commands on the node.

    Raises:
        NotYet: cloud-init or one of swarmer's units is still running or starting, the node can't resolve the cluster's
            names, or the registry doesn't answer it under its name.
        Hopeless: a unit failed.
    """
    spec = node.cluster.spec
    # One call of systemctl, and no request to the registry before the rest is healthy: each costs a slow node time.
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
        raise NotYet(f"{node.name}: the cluster's names don't resolve")
    registry = node.execute(
        # `cd`, because curl reads `--cert PATH:PASSWORD`, and the path of this folder contains a colon.
        f"cd /etc/docker/certs.d/{spec.registry_host} &&"
        f" curl --silent --max-time {node.scaled(5):.0f} --cacert ca.crt --cert client.cert --key client.key"
        f" --output /dev/null --write-out '%{{http_code}}' https://{spec.registry_host}/v2/_catalog?n=1"
    ).stdout
    if registry != "200":
        raise NotYet(f"{node.name}: the registry answers {registry} under its name")


def check_consul(cluster: Cluster) -> None:
    """Check once that consul has a leader and all its voters, and that all members are alive.

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
        raise NotYet(f"the catalog still lists the replaced node under {', '.join(former)}")


def check_registry(cluster: Cluster) -> None:
    """Check once that all registry nodes are healthy and one of them leads; with S3 storage, all may write.

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
    """The name of the registry's leader.

    Raises:
        NotYet: the registry has no leader.
    """
    _, lock = reachable_server(cluster).kv.get(LOCK, consistency="consistent")
    if not (lock and lock.get("Session")):
        raise NotYet("the registry has no leader")
    return str(json.loads(lock["Value"])["name"])


def check_swarm(cluster: Cluster) -> None:
    """Check once that the swarm has a leader and exactly the nodes of the spec, each ready and in its role.

    Raises:
        NotYet: something is missing or superfluous.
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
            raise NotYet(f"in the swarm, {member.name} is still the node that was replaced")
        if flaw := _swarm_flaw(member, cluster.spec.server(member.name)):
            raise NotYet(f"in the swarm, {member.name} is {flaw}")
    _, rows = reachable_server(cluster).health.service("swarm", passing=True)
    announced = {row["Node"]["Node"] for row in rows}
    if absent := {server.name for server in cluster.spec.managers} - announced:
        raise NotYet(f"consul doesn't list the swarm's manager {', '.join(sorted(absent))}")
    if not any("leader" in row["Service"]["Tags"] for row in rows):
        raise NotYet("consul doesn't list the swarm's leader")


def _swarm_flaw(member: docker_api.Member, server: Server) -> str:
    """How a swarm node differs from its spec; empty if it doesn't."""
    availability = "drain" if server.swarm is SwarmRole.MANAGER else "active"
    role = "worker" if server.swarm is SwarmRole.AGENT else "manager"
    if member.state != "ready":
        return member.state
    if member.manager is not (role == "manager"):
        return f"not a {role}"
    if member.reachability not in ("", "reachable"):
        return member.reachability
    if member.availability != availability:
        return f"{member.availability}, not {availability}"
    missing = {name: value for name, value in server.node_labels.items() if member.labels.get(name) != value}
    return f"without the labels {missing}" if missing else ""


def swarm_members(cluster: Cluster) -> list[docker_api.Member]:
    """The nodes of the swarm, as listed by the first manager that has a quorum.

    Raises:
        NotYet: no manager answers, or none has a quorum.
    """
    last = "no swarm manager is running"
    for node in cluster.swarm_managers:
        if node.running:
            try:
                return docker_api.members(node.docker)
            except docker_api.Unavailable as error:
                last = f"{node.name}: {docker_api.reason(error)}"
    raise NotYet(last)


def swarm_ids(cluster: Cluster) -> dict[str, str]:
    """Node name to the swarm id that the node last recorded in consul; empty if it hasn't recorded one.

    Raises:
        NotYet: no consul server knows a leader.
        Unavailable: the consul server doesn't answer.
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
    last = "no consul server is running"
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
