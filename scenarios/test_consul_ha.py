"""Consul keeps what it acknowledged and stays of one mind, whatever happens to a minority of its servers."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from swarmer.clients import consul_api
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.wait import NotYet

#: Seconds from a leader's loss to the next consistent read. With `raft_multiplier` 1 a follower stands for
#: election after at most 2 s of silence; a split vote costs another 2 s; the rest is slack for a busy host.
ELECTION_BOUND = 8.0

Record = Callable[[str, object], None]

three_servers = pytest.mark.needs_servers(3)

#: Seconds in which autopilot has looked for dead servers, which it does every ten.
AUTOPILOT = 22.0


@pytest.mark.smoke
def test_after_boot_there_is_one_leader_and_every_server_is_a_peer(cluster: Cluster) -> None:
    views = [consul_api.raft_peers(node.consul) for node in cluster.consul_servers]
    assert all(view == views[0] for view in views)
    assert {peer.name for peer in views[0]} == {node.name for node in cluster.consul_servers}
    assert all(peer.voter for peer in views[0])
    assert sum(peer.leader for peer in views[0]) == 1


def test_every_node_is_a_member_in_the_role_of_the_spec(cluster: Cluster) -> None:
    for node in cluster.nodes:
        members = {member["Name"]: member["Tags"]["role"] for member in node.consul.agent.members()}
        assert members == {peer.name: "consul" if peer in cluster.consul_servers else "node" for peer in cluster.nodes}


@pytest.mark.smoke
def test_what_one_node_writes_all_nodes_read(nodes: list[Node]) -> None:
    for writer in nodes:
        assert writer.consul.kv.put(f"written-on/{writer.name}", "hello")
        for reader in nodes:
            assert _read(reader, f"written-on/{writer.name}") == "hello"


@pytest.mark.parametrize("order", ["all at once", "one by one", "one by one, backwards"])
def test_new_nodes_form_one_cluster_in_whatever_order_they_boot(cluster: Cluster, order: str) -> None:
    for node in cluster.nodes:
        node.power_off()
    for node in reversed(cluster.nodes) if "backwards" in order else cluster.nodes:
        cluster.replace(node)
        if order != "all at once":
            node.wait_booted()
    for node in cluster.nodes:
        node.wait_booted()
    cluster.wait_converged()


@three_servers
def test_an_acknowledged_write_survives_the_power_off_of_the_leader(
    cluster: Cluster, consul_leader: Node, faults: Faults, record_property: Record
) -> None:
    acknowledged = _write_until_the_end(consul_leader, "power-off")
    with faults.power_off(consul_leader):
        record_property("seconds_without_leader", _elect_another(cluster, consul_leader))
        assert _missing(cluster, acknowledged) == []


@pytest.mark.smoke
@three_servers
def test_an_acknowledged_write_survives_kill_9_of_the_leader(
    cluster: Cluster, consul_leader: Node, faults: Faults
) -> None:
    acknowledged = _write_until_the_end(consul_leader, "kill")
    with faults.kill(consul_leader, "consul"):
        assert _missing(cluster, acknowledged) == []


@three_servers
def test_a_frozen_leader_is_replaced_and_follows_when_it_wakes(
    cluster: Cluster, consul_leader: Node, faults: Faults, record_property: Record
) -> None:
    with faults.stop(consul_leader, unit="consul"):
        record_property("seconds_without_leader", _elect_another(cluster, consul_leader))
        others = _others(cluster, consul_leader)
        assert others[0].consul.kv.put("while-frozen", "kept")
    assert _read(consul_leader, "while-frozen") == "kept"


@three_servers
def test_a_minority_cut_off_refuses_writes_while_the_majority_serves(
    cluster: Cluster, consul_leader: Node, faults: Faults, record_property: Record
) -> None:
    majority = _others(cluster, consul_leader)
    rest = [node for node in cluster.nodes if node is not consul_leader]
    with faults.partition([consul_leader], rest):
        record_property("seconds_without_leader", _elect_another(cluster, consul_leader))
        assert majority[0].consul.kv.put("split/majority", "served")
        _refuses_writes(consul_leader, "split/minority")
        _refuses_consistent_reads(consul_leader, "split/majority")
    _all_agree(cluster, {"split/majority": "served"}, refused=["split/minority"])


@three_servers
@pytest.mark.parametrize("direction", ["to_other", "to_side"])
def test_a_leader_cut_off_in_one_direction_leaves_one_history(
    cluster: Cluster, consul_leader: Node, faults: Faults, direction: str
) -> None:
    rest = [node for node in cluster.nodes if node is not consul_leader]
    with faults.partition([consul_leader], rest, direction=direction):  # type: ignore[arg-type]
        accepted = cluster.until(
            "a write on the side of the majority",
            lambda: _others(cluster, consul_leader)[0].consul.kv.put(f"one-way/{direction}", "served"),
            timeout=20,
            retry_on=consul_api.Unavailable,
        )
        assert accepted
    _all_agree(cluster, {f"one-way/{direction}": "served"})


@three_servers
def test_losing_the_majority_stops_writes_and_one_return_restores_them(
    cluster: Cluster, consul_servers: list[Node], faults: Faults
) -> None:
    assert consul_servers[0].consul.kv.put("quorum/before", "kept")
    majority = len(consul_servers) // 2 + 1
    survivor, lost = consul_servers[0], consul_servers[-majority:]
    with faults.power_off(*lost):
        _refuses_writes(survivor, "quorum/without")
        lost[0].power_on()
        cluster.until(
            "writes again",
            lambda: survivor.consul.kv.put("quorum/again", "kept"),
            timeout=30,
            retry_on=consul_api.Unavailable,
        )
    _all_agree(cluster, {"quorum/before": "kept", "quorum/again": "kept"}, refused=["quorum/without"])


@three_servers
def test_a_server_that_is_off_stays_a_peer(
    cluster: Cluster, consul_servers: list[Node], consul_follower: Node, faults: Faults
) -> None:
    """Without it, the others would be a quorum of two, which survives no further loss."""
    peers = {server.name for server in consul_servers}
    with faults.power_off(consul_follower):
        cluster.until_true(
            "its death to be noticed",
            lambda: consul_follower.name not in consul_api.members_alive(cluster.consul),
            timeout=15,
        )
        cluster.pause(AUTOPILOT)
        assert {peer.name for peer in consul_api.raft_peers(cluster.consul)} == peers


def test_a_rebooted_node_rejoins_with_its_data_and_without_a_provisioner(cluster: Cluster, consul_leader: Node) -> None:
    assert consul_leader.consul.kv.put("before-reboot", "kept")
    written = consul_leader.succeed("find /etc/swarmer -type f -printf '%p %T@\n' | sort")
    before = consul_leader.boot_id()
    consul_leader.reboot()
    assert consul_leader.boot_id() != before
    cluster.wait_converged()
    _, entry = consul_leader.consul.kv.get("before-reboot", consistency="stale")
    assert entry["Value"] == b"kept"
    assert consul_leader.succeed("find /etc/swarmer -type f -printf '%p %T@\n' | sort") == written


@three_servers
def test_a_replaced_node_joins_and_the_dead_one_is_no_peer_any_more(cluster: Cluster, consul_follower: Node) -> None:
    assert cluster.consul.kv.put("before-replacement", "kept")
    dead = _raft_ids(cluster)[consul_follower.name]
    consul_follower.replace()
    cluster.wait_converged()
    peers = _raft_ids(cluster)
    assert set(peers) == {node.name for node in cluster.consul_servers}
    assert dead not in peers.values()
    _, entry = consul_follower.consul.kv.get("before-replacement", consistency="stale")
    assert entry["Value"] == b"kept"


@three_servers
@pytest.mark.means_failure("consul.service")
def test_a_node_that_is_new_before_anybody_missed_the_former_one_is_itself_in_the_catalog(
    cluster: Cluster, consul_follower: Node
) -> None:
    """Consul keeps a name for the node that it takes for alive, and would refuse the new one for ever."""
    former = consul_follower.consul.agent.self()["Config"]["NodeID"]
    pid = consul_follower.main_pid("consul")
    consul_follower.succeed(
        f"kill -KILL {pid}; tail --pid={pid} --follow /dev/null; rm -r /var/lib/consul/*; "
        "systemctl restart consul && systemctl restart --no-block swarmer-acl"
    )
    cluster.wait_converged()
    _, found = cluster.consul.catalog.node(consul_follower.name, consistency="consistent")
    assert found["Node"]["ID"] == consul_follower.consul.agent.self()["Config"]["NodeID"] != former
    # And what it announces gets into the catalog.
    consul_follower.consul.agent.service.register("anew")
    try:
        cluster.until_true("its service", lambda: cluster.consul.catalog.service("anew")[1], timeout=10)
    finally:
        consul_follower.consul.agent.service.deregister("anew")


def test_when_all_nodes_lost_power_the_data_is_there_again(cluster: Cluster, faults: Faults) -> None:
    assert cluster.consul.kv.put("before-blackout", "kept")
    with faults.power_off(*cluster.nodes):
        assert not any(node.running for node in cluster.nodes)
    _all_agree(cluster, {"before-blackout": "kept"})


# -- what the promises are made of -------------------------------------------------------------------------


def _others(cluster: Cluster, one: Node) -> list[Node]:
    """The consul servers but one."""
    return [node for node in cluster.consul_servers if node is not one]


def _read(node: Node, key: str) -> str | None:
    """A value, by a consistent read through a node."""
    _, entry = node.consul.kv.get(key, consistency="consistent")
    return entry["Value"].decode() if entry else None


def _write_until_the_end(node: Node, prefix: str) -> list[str]:
    """The keys of writes that the node acknowledged, the last one just now."""
    keys = [f"{prefix}/{number}" for number in range(50)]
    return [key for key in keys if node.consul.kv.put(key, key)]


def _missing(cluster: Cluster, acknowledged: list[str]) -> list[str]:
    """Which acknowledged keys a consistent read doesn't find; waits out an election."""
    assert acknowledged

    def probe() -> list[str]:
        _, entries = cluster.consul.kv.get(acknowledged[0].split("/")[0], recurse=True, consistency="consistent")
        found = {entry["Key"] for entry in entries or ()}
        return [key for key in acknowledged if key not in found]

    return cluster.until("a consistent read", probe, timeout=ELECTION_BOUND, retry_on=consul_api.Unavailable)


def _elect_another(cluster: Cluster, lost: Node) -> float:
    """Seconds until another leader serves a consistent read."""
    start = time.monotonic()
    others = _others(cluster, lost)

    def probe() -> None:
        leader = cluster.consul_leader(among=others, timeout=1)
        if leader is lost:
            raise NotYet(f"{lost.name} counts as the leader still")
        _read(leader, "any")

    cluster.until(
        "another leader",
        probe,
        timeout=ELECTION_BOUND,
        interval=0.05,
        retry_on=(AssertionError, *consul_api.Unavailable),
    )
    return round(time.monotonic() - start, 2)


def _refuses_writes(node: Node, key: str) -> None:
    with pytest.raises(consul_api.Unavailable):
        node.consul.kv.put(key, "lost")


def _refuses_consistent_reads(node: Node, key: str) -> None:
    with pytest.raises(consul_api.Unavailable):
        _read(node, key)


def _all_agree(cluster: Cluster, expected: dict[str, str], *, refused: Sequence[str] = ()) -> None:
    """Every server has the same history: the same values, from its own copy.

    Args:
        refused: keys of writes that were refused. Raft may have kept such a write in a log and commit it later, so
            it may be there or not, but on all servers alike.
    """

    def probe() -> None:
        copies = {node.name: _copy(node, [*expected, *refused]) for node in cluster.consul_servers}
        for name, copy in copies.items():
            for key, value in expected.items():
                if copy[key] != value:
                    raise NotYet(f"{name} has {copy[key]!r} under {key}, not {value!r}")
        for key in refused:
            if len({copy[key] for copy in copies.values()}) > 1:
                raise NotYet(f"the servers differ on {key}: {copies}")

    cluster.until("all servers to agree", probe, timeout=10, retry_on=consul_api.Unavailable)


def _copy(node: Node, keys: list[str]) -> dict[str, str | None]:
    """What a server's own copy has under each key, however old."""
    entries = {key: node.consul.kv.get(key, consistency="stale")[1] for key in keys}
    return {key: entry["Value"].decode() if entry else None for key, entry in entries.items()}


def _raft_ids(cluster: Cluster) -> dict[str, str]:
    """Name of each peer to the id of its raft server."""
    servers: Any = cluster.consul.operator.raft_config()["Servers"]
    return {row["Node"]: row["ID"] for row in servers}
