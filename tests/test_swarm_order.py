"""What the leader of the swarm makes of the list of nodes, as docker's API gives it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.swarm.order import is_down, is_genuine, may_leave, name, replaced, unlabelled
from swarmer.node.swarm.store import Known

NAMES = ("swarm-01", "swarm-02", "swarm-03")
ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate(NAMES, 1)}

names = st.sampled_from(["", *NAMES])
labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))
roles = st.sampled_from(["worker", "manager"])


def entry(
    number: int, name: str, *, ip: str = "", role: str = "worker", down: bool = False, own: dict[str, str] | None = None
) -> dict[str, Any]:
    """An entry of a node, as docker's API gives it; a higher number joined later."""
    ip = ip or ADDRESSES.get(name, "")
    return {
        "ID": str(number),
        "CreatedAt": f"2026-01-01T00:00:00.{number:09}Z",
        "Description": {"Hostname": name} if name else {},
        "Spec": {"Role": role} | ({} if own is None else {"Labels": own}),
        "Status": {"State": "down" if down else "ready", "Addr": ip},
        **({"ManagerStatus": {"Addr": f"{ip}:2377"}} if role == "manager" else {}),
    }


@st.composite
def nodes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Some nodes, in any order; one that has only just joined has not told its name, and some don't tell their own."""
    drawn = draw(
        st.lists(st.tuples(names, st.sampled_from(list(ADDRESSES.values())), roles, st.booleans(), labels | st.none()))
    )
    entries = [
        entry(number, name, ip=ip, role=role, down=down, own=own)
        for number, (name, ip, role, down, own) in enumerate(drawn)
    ]
    return draw(st.permutations(entries))


plans = st.fixed_dictionaries(
    {name: st.fixed_dictionaries({"ip": st.just(ADDRESSES[name]), "role": roles, "labels": labels}) for name in NAMES}
)

PLAN = {name: {"ip": ip, "role": "manager", "labels": {}} for name, ip in ADDRESSES.items()}


@given(nodes=nodes(), plan=plans)
def test_of_each_name_one_entry_stays_and_a_genuine_one_if_there_is_any(
    nodes: list[dict[str, Any]], plan: dict[str, Any]
) -> None:
    gone = replaced(nodes, plan)
    stay = [node for node in nodes if node not in gone]
    assert sorted(name(node) for node in stay if name(node)) == sorted({name(node) for node in nodes} - {""})
    for node in stay:
        namesakes = [other for other in nodes if name(other) == name(node) != ""]
        assert is_genuine(node, plan) or not any(is_genuine(other, plan) for other in namesakes)


def test_the_node_that_joined_last_stays() -> None:
    former, later = entry(1, "swarm-01", role="manager"), entry(2, "swarm-01", role="manager")
    assert replaced([later, former], PLAN) == [former]


def test_the_node_that_is_up_stays_whatever_the_clock_said_when_it_joined() -> None:
    former, later = entry(2, "swarm-01", role="manager", down=True), entry(1, "swarm-01", role="manager")
    assert replaced([later, former], PLAN) == [former]


def test_who_only_says_that_it_is_another_node_does_not_take_its_place() -> None:
    real = entry(1, "swarm-01", role="manager", down=True)
    elsewhere = entry(2, "swarm-01", ip=ADDRESSES["swarm-03"])
    worker = entry(3, "swarm-01")
    assert replaced([real, elsewhere, worker], PLAN) == [elsewhere, worker]


@given(nodes=nodes(), plan=plans)
def test_a_node_that_has_not_told_its_name_is_left_alone(nodes: list[dict[str, Any]], plan: dict[str, Any]) -> None:
    assert "" not in {name(node) for node in replaced(nodes, plan)}


@given(nodes=nodes(), plan=plans)
def test_labels_of_the_spec_are_added_to_whom_they_are_meant_for_and_others_stay(
    nodes: list[dict[str, Any]], plan: dict[str, Any]
) -> None:
    changes = {node["ID"]: own for node, own in unlabelled(nodes, plan)}
    for node in nodes:
        before = node["Spec"].get("Labels") or {}
        wanted = plan[name(node)]["labels"] if node["Status"]["Addr"] == ADDRESSES.get(name(node)) else {}
        after = changes.get(node["ID"], before)
        assert after == {**before, **wanted}
        assert node["ID"] not in changes or after != before


managers = st.lists(
    st.tuples(st.sampled_from(["down", "ready"]), st.sampled_from(["reachable", "unreachable"])), max_size=7
)


@given(states=managers)
def test_of_managers_that_count_as_down_one_leaves_and_the_others_keep_their_quorum(
    states: list[tuple[str, str]],
) -> None:
    nodes = [
        {
            "ID": f"id-{number}",
            "Description": {"Hostname": f"swarm-{number:02}"},
            "Status": {"State": state},
            "ManagerStatus": {"Reachability": reachability},
        }
        for number, (state, reachability) in enumerate(states)
    ]
    up = [node for node, (_, reachability) in zip(nodes, states, strict=True) if reachability == "reachable"]
    leaving = [node for node in up if is_down(node) and may_leave(node, nodes)]
    assert len(leaving) <= 1
    spare = len(up) - 1 >= len(nodes) // 2 + 1
    assert bool(leaving) == (spare and any(is_down(node) for node in up))


@given(known=st.builds(Known, st.text("abc123", min_size=1), st.booleans()))
def test_how_the_leader_knows_a_node_is_read_as_it_was_recorded(known: Known) -> None:
    assert Known.parse(str(known)) == known
