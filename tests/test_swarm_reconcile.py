"""What the leader of the swarm makes of the entries that docker's API shows, over any number of looks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.swarm import reconcile
from swarmer.node.swarm.reconcile import BREAK, Kind, Promote, Reconciler, Remove, Update
from swarmer.node.swarm.records import Identity, Known, Records

NAMES = ("swarm-01", "swarm-02", "swarm-03", "swarm-04", "swarm-05")
MANAGERS = NAMES[:3]
PLAN: dict[str, dict[str, Any]] = {
    name: {
        "ip": f"10.0.0.{number}",
        "role": "manager" if name in MANAGERS else "worker",
        "availability": "drain" if name == "swarm-03" else "active",
        "labels": {"swarm": "any"} | ({"disk": "ssd"} if name == "swarm-04" else {}),
    }
    for number, name in enumerate(NAMES, 1)
}

#: Seconds between two looks.
STEP = 0.5


def entry(
    identity: str,
    host: str,
    *,
    manager: bool = False,
    state: str = "ready",
    reachable: bool = True,
    leader: bool = False,
    availability: str = "active",
    labels: dict[str, str] | None = None,
    ip: str = "",
) -> dict[str, Any]:
    """An entry of the swarm, as docker's API gives it."""
    address = ip or PLAN.get(host, {}).get("ip", "10.0.0.99")
    status = {"Addr": f"{address}:2377", "Reachability": "reachable" if reachable else "unreachable", "Leader": leader}
    return {
        "ID": identity,
        "Description": {"Hostname": host} if host else {},
        "Spec": {"Role": "manager" if manager else "worker", "Availability": availability, "Labels": labels or {}},
        "Status": {"State": state, "Addr": address},
        **({"ManagerStatus": status} if manager else {}),
    }


def records(
    nodes: Mapping[str, Identity], members: Mapping[str, Known] | None = None, managers: Mapping[str, str] | None = None
) -> Records:
    known = {name: Known(identity.node, False) for name, identity in nodes.items()}
    return Records("cluster", 1, {}, nodes, managers or {}, known if members is None else members, 1)


def whole() -> list[dict[str, Any]]:
    """A swarm that is as the plan wants it; each node has its own name as its id."""
    return [
        entry(
            name,
            name,
            manager=name in MANAGERS,
            leader=name == "swarm-01",
            availability=PLAN[name]["availability"],
            labels=dict(PLAN[name]["labels"]),
        )
        for name in NAMES
    ]


RECORDED = {name: Identity(name) for name in NAMES}


@dataclass
class Swarm:
    """Entries that do what the leader decides, as docker would."""

    entries: list[dict[str, Any]]
    recorded: Mapping[str, Identity] = field(default_factory=lambda: dict(RECORDED))
    watch: Reconciler = field(default_factory=lambda: Reconciler(PLAN))
    now: float = 0.0
    touched: dict[str, str] = field(default_factory=dict)

    def look(self, shown: list[dict[str, Any]] | None = None) -> list[reconcile.Action]:
        """One look at the entries, or at what docker shows of them just now; each action is carried out."""
        self.now += STEP
        actions = self.watch.look(self.entries if shown is None else shown, records(self.recorded), self.now)
        for action in actions:
            self._do(action)
        return actions

    def look_for(self, seconds: float) -> None:
        for _ in range(int(seconds / STEP)):
            self.look()

    def ids(self) -> set[str]:
        return {node["ID"] for node in self.entries}

    def _do(self, action: reconcile.Action) -> None:
        node = next(node for node in self.entries if node["ID"] == action.node["ID"])
        match action:
            case Promote():
                node["Spec"]["Role"] = "manager"
            case Remove():
                assert "ManagerStatus" not in node
                self.touched[node["ID"]] = action.reason
                self.entries.remove(node)
            case Update(_, changes, reason):
                node["Spec"] |= changes
                if reason:
                    self.touched[node["ID"]] = reason
                    assert not node["ManagerStatus"]["Leader"]
                    del node["ManagerStatus"]
                    managers = [each["ManagerStatus"] for each in self.entries if "ManagerStatus" in each]
                    reachable = sum(status["Reachability"] == "reachable" for status in managers)
                    assert reachable > len(managers) // 2


hosts = st.sampled_from(["", *NAMES, "foreign"])
states = st.sampled_from(["ready", "down", "unknown", "disconnected"])

#: What docker may show wrongly of an entry for a while: its host name, its address, its state.
shown_wrongly = st.fixed_dictionaries(
    {
        "host": hosts,
        "ip": st.sampled_from([planned["ip"] for planned in PLAN.values()]),
        "state": states,
        "reachable": st.booleans(),
    }
)

leftovers = st.lists(st.tuples(hosts, st.booleans(), states, st.booleans(), st.booleans()), max_size=4)


@given(
    looks=st.lists(st.dictionaries(st.sampled_from(NAMES), shown_wrongly), min_size=1, max_size=60),
    left=leftovers,
)
def test_whatever_docker_shows_a_node_whose_id_is_recorded_is_never_demoted_nor_removed(
    looks: list[dict[str, dict[str, Any]]], left: list[tuple[str, bool, str, bool, bool]]
) -> None:
    swarm = Swarm(whole() + _leftovers(left))
    for wrong in looks:
        shown = [_shown(node, wrong.get(node["ID"], {})) for node in swarm.entries]
        swarm.look(shown)
        assert not swarm.touched.keys() & set(NAMES)


@given(left=leftovers, named=st.booleans())
def test_every_leftover_goes_in_the_end_and_the_quorum_stays(
    left: list[tuple[str, bool, str, bool, bool]], named: bool
) -> None:
    """Of all that isn't recorded nothing stays, but managers that the quorum can't spare."""
    entries = _leftovers(left)
    swarm = Swarm(whole() + entries)
    if named:  # nodes record what they were before
        former = tuple(node["ID"] for node in entries)
        swarm.recorded = RECORDED | {"swarm-05": Identity("swarm-05", former)}
    swarm.look_for(Kind.UNNAMED.seconds + Kind.FOREIGN.seconds)
    for node in swarm.entries:
        assert node["ID"] in NAMES or not reconcile.spares(node, swarm.entries)
    assert set(NAMES) <= swarm.ids()


@given(left=leftovers)
def test_nothing_goes_at_the_first_look(left: list[tuple[str, bool, str, bool, bool]]) -> None:
    swarm = Swarm(whole() + _leftovers(left))
    swarm.look()
    assert swarm.touched == {}


def test_a_manager_that_docker_shows_as_a_worker_stays_for_good() -> None:
    """Moby does so in the second after an election: issues 46167 and 46462."""
    entries = whole()
    entries[1]["Description"]["Hostname"] = "swarm-04"
    swarm = Swarm(entries)
    swarm.look_for(600)
    assert swarm.ids() == set(NAMES)
    assert swarm.touched == {}
    assert "disk" not in entries[1]["Spec"]["Labels"]


@pytest.mark.parametrize("manager", [True, False])
def test_the_former_self_of_a_replaced_node_goes_within_two_seconds(manager: bool) -> None:
    name = "swarm-02" if manager else "swarm-04"
    former = entry("former", name, manager=manager, state="down", reachable=False)
    swarm = Swarm([*whole(), former], RECORDED | {name: Identity(name, ("former",))})
    swarm.look()
    assert swarm.touched == {}
    swarm.look_for(2.5)
    assert swarm.ids() == set(NAMES)


def test_a_node_that_runs_on_a_former_disk_again_is_left_alone_until_it_has_recorded_that() -> None:
    again, gone = entry("again", "swarm-02", manager=True), entry("swarm-02", "swarm-02", manager=True, state="down")
    swarm = Swarm([*whole()[:1], gone, *whole()[2:], again], RECORDED | {"swarm-02": Identity("swarm-02", ("again",))})
    swarm.look_for(60)
    assert "again" in swarm.ids()
    swarm.recorded = RECORDED | {"swarm-02": Identity("again", ("swarm-02",))}
    swarm.look_for(5)
    assert swarm.ids() == {"again", *NAMES} - {"swarm-02"}


def test_a_node_that_has_not_recorded_its_id_is_no_leftover_while_its_former_self_is_missed() -> None:
    """The former one counts as up for some seconds after it died; the new one may have trouble with consul."""
    former, new = entry("swarm-04", "swarm-04"), entry("new", "swarm-04")
    swarm = Swarm([*whole()[:3], whole()[4], former, new])
    swarm.look_for(7)
    former["Status"]["State"] = "down"
    swarm.look_for(600)
    assert "new" in swarm.ids()


def test_what_was_seen_before_a_break_does_not_count() -> None:
    swarm = Swarm([*whole(), entry("former", "swarm-04")], RECORDED | {"swarm-04": Identity("swarm-04", ("former",))})
    swarm.look()
    swarm.now += BREAK
    swarm.look()
    assert swarm.touched == {}


def test_what_was_well_between_two_looks_has_to_be_superfluous_anew() -> None:
    swarm = Swarm([*whole(), foreign := entry("foreign", "foreign")])
    swarm.look_for(Kind.FOREIGN.seconds - 1)
    foreign["Description"]["Hostname"] = "swarm-06"
    swarm.look([node for node in swarm.entries if node is not foreign])
    swarm.look_for(Kind.FOREIGN.seconds - 1)
    assert "foreign" in swarm.ids()
    swarm.look_for(3)
    assert "foreign" not in swarm.ids()


def test_an_id_that_two_nodes_recorded_is_left_alone() -> None:
    swarm = Swarm(whole(), RECORDED | {"swarm-04": Identity("swarm-02")})
    swarm.look_for(600)
    assert "swarm-02" in swarm.ids()
    assert "disk" not in next(node for node in swarm.entries if node["ID"] == "swarm-02")["Spec"]["Labels"]


@pytest.mark.parametrize("state", ["ready", "down"])
def test_a_manager_of_the_spec_that_is_a_worker_is_promoted_after_a_while(state: str) -> None:
    """Docker counts it as down for some seconds after it was demoted."""
    entries = whole()
    entries[1] = entry("swarm-02", "swarm-02", state=state)
    swarm = Swarm(entries)
    swarm.look_for(Kind.DEMOTED.seconds - 1)
    assert entries[1]["Spec"]["Role"] == "worker"
    swarm.look_for(3)
    assert entries[1]["Spec"]["Role"] == "manager"


def test_a_manager_that_was_demoted_holds_the_swarms_state_no_more() -> None:
    entries = whole()
    entries[1] = entry("swarm-02", "swarm-02")
    assert reconcile.without_state(entries, records(RECORDED, managers={name: name for name in MANAGERS})) == [
        "swarm-02"
    ]
    assert reconcile.without_state(entries, records(RECORDED)) == []


def test_what_can_not_be_done_is_not_looked_at_in_a_hurry() -> None:
    foreign = entry("foreign", "foreign", manager=True)
    silent = entry("swarm-02", "swarm-02", manager=True, state="down", reachable=False, labels={"swarm": "any"})
    swarm = Swarm([whole()[0], silent, foreign])  # without it, there would be no quorum
    swarm.look()
    assert swarm.watch.pause(swarm.now, calm=2) == 0.1
    swarm.look_for(Kind.FOREIGN.seconds + 5)
    assert "foreign" in swarm.ids()
    assert swarm.watch.pause(swarm.now, calm=2) == 2


def test_a_manager_that_is_held_as_a_worker_is_not_promoted() -> None:
    demoted = entry("swarm-02", "swarm-02", labels={"swarmer.role": "worker"})
    swarm = Swarm([demoted if node["ID"] == "swarm-02" else node for node in whole()])
    swarm.look_for(600)
    assert demoted["Spec"]["Role"] == "worker"


def test_a_node_that_has_just_joined_gets_the_availability_of_the_spec_and_later_keeps_another() -> None:
    """Also when consul has lost what it knew: what was set once stands in the swarm."""
    nodes = whole()
    nodes[0]["Spec"]["Availability"] = nodes[4]["Spec"]["Availability"] = "drain"
    nodes[4]["Spec"]["Labels"] = {}
    (action,) = Reconciler(PLAN).look(nodes, records(RECORDED, {}), 0)
    assert action == Update(nodes[4], {"Labels": {"swarm": "any"}, "Availability": "active"})


@given(
    own=st.dictionaries(st.sampled_from("abc") | st.just("disk"), st.sampled_from("xyz")),
    host=hosts,
)
def test_labels_go_by_the_id_alone_and_others_stay(own: dict[str, str], host: str) -> None:
    node = entry("swarm-04", host, labels=own)
    for action in Reconciler(PLAN).look([node], records(RECORDED), 0):
        assert isinstance(action, Update)
        node["Spec"] |= action.changes
    assert node["Spec"]["Labels"] == {**own, **PLAN["swarm-04"]["labels"]}
    stranger = entry("stranger", host, labels=own)
    assert Reconciler(PLAN).look([stranger], records(RECORDED), 0) == []


managers = st.lists(st.tuples(states, st.booleans()), max_size=7)


@given(managers=managers)
def test_of_managers_that_count_as_down_one_leaves_and_the_others_keep_their_quorum(
    managers: list[tuple[str, bool]],
) -> None:
    nodes = [
        entry(f"id-{number}", "any", manager=True, state=state, reachable=reachable)
        for number, (state, reachable) in enumerate(managers)
    ]
    up = [node for node, (_, reachable) in zip(nodes, managers, strict=True) if reachable]
    leaving = [node for node in up if reconcile.is_down(node) and reconcile.may_leave(node, nodes)]
    assert len(leaving) <= 1
    spare = len(up) - 1 >= len(nodes) // 2 + 1
    assert bool(leaving) == (spare and any(reconcile.is_down(node) for node in up))


def test_a_swarm_is_that_of_the_cluster_where_most_of_its_managers_are() -> None:
    assert reconcile.is_swarm_of(whole(), PLAN)
    assert not reconcile.is_swarm_of(whole()[:1], PLAN)
    assert reconcile.is_swarm_of(whole()[1:], PLAN)
    elsewhere = [entry(f"id-{number}", "swarm-01", manager=True, ip="10.0.0.50") for number in range(3)]
    assert not reconcile.is_swarm_of(elsewhere, PLAN)


def _leftovers(drawn: list[tuple[str, bool, str, bool, bool]]) -> list[dict[str, Any]]:
    return [
        entry(f"left-{number}", host, manager=manager, state=state, reachable=reachable and not gone)
        for number, (host, manager, state, reachable, gone) in enumerate(drawn)
    ]


def _shown(node: dict[str, Any], wrong: dict[str, Any]) -> dict[str, Any]:
    """An entry with what docker shows wrongly of it; its id, role and what the raft knows stay."""
    if not wrong:
        return node
    shown = {
        **node,
        "Description": {"Hostname": wrong["host"]},
        "Status": {"State": wrong["state"], "Addr": wrong["ip"]},
    }
    if "ManagerStatus" in node and not node["ManagerStatus"]["Leader"]:
        reachability = "reachable" if wrong["reachable"] else "unreachable"
        shown["ManagerStatus"] = {**node["ManagerStatus"], "Reachability": reachability}
    return shown
