"""What the leader of the swarm makes of the list of nodes, as docker's API gives it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.swarm.order import is_down, may_leave, name, replaced, unlabelled
from swarmer.node.swarm.store import Known

names = st.sampled_from(["", "swarm-01", "swarm-02", "swarm-03"])
times = st.integers(0, 10**9).map(lambda number: f"2026-01-01T00:00:00.{number:09}Z")
labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))


@st.composite
def nodes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Some nodes; one that has only just joined has not told its name."""
    entries = draw(st.lists(st.tuples(names, times, labels | st.none()), unique_by=lambda entry: entry[1]))
    return [
        {
            "ID": str(number),
            "CreatedAt": created,
            "Description": {"Hostname": name} if name else {},
            "Spec": {"Role": "worker"} | ({} if own is None else {"Labels": own}),
        }
        for number, (name, created, own) in enumerate(entries)
    ]


@given(nodes=nodes())
def test_of_each_name_only_the_latest_entry_stays(nodes: list[dict[str, Any]]) -> None:
    gone = [node["ID"] for node in replaced(nodes)]
    stay = [node for node in nodes if node["ID"] not in gone]
    named = [name(node) for node in stay if name(node)]
    assert sorted(named) == sorted({name(node) for node in nodes} - {""})
    for node in stay:
        assert all(other["CreatedAt"] <= node["CreatedAt"] for other in nodes if name(other) == name(node) != "")


@given(nodes=nodes())
def test_a_node_that_has_not_told_its_name_is_left_alone(nodes: list[dict[str, Any]]) -> None:
    assert "" not in {name(node) for node in replaced(nodes)}


@given(nodes=nodes(), wanted=st.dictionaries(names.filter(bool), labels))
def test_labels_of_the_spec_are_added_and_others_stay(
    nodes: list[dict[str, Any]], wanted: dict[str, dict[str, str]]
) -> None:
    changes = {node["ID"]: own for node, own in unlabelled(nodes, wanted)}
    for node in nodes:
        before = node["Spec"].get("Labels") or {}
        after = changes.get(node["ID"], before)
        assert after.items() >= wanted.get(name(node), {}).items()
        assert {key: after[key] for key in before.keys() - wanted.get(name(node), {}).keys()} == {
            key: before[key] for key in before.keys() - wanted.get(name(node), {}).keys()
        }
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
