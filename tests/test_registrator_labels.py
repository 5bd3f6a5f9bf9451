"""The labels of swarm services: managers share them, and tasks wait for them."""

import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_node import INACTIVE, WORKER, Clock, Listing, Node, look, plain, read_labels, service, task, turn
from registrator_strategies import metadata, states

from swarmer.node.consul_agent import Refused
from swarmer.node.docker_engine import EngineError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


@pytest.fixture
def node() -> Node:
    return Node()


# -- labels that managers share ---------------------------------------------------------------------------

#: A service, and its new tags, or None at its end.
changes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from(["blue", "green"])), max_size=3)


@given(st.lists(st.tuples(changes, changes, st.sampled_from([0.0, 1.0, 100.0])), min_size=1, max_size=6))
def test_what_other_managers_share_while_docker_answers_is_neither_deleted_nor_undone(
    steps: list[tuple[list[tuple[str, str | None]], list[tuple[str, str | None]], float]],
) -> None:
    node, clock = Node(), Clock()
    made = node.registrator()
    truth: dict[str, str] = {}
    ended: set[str] = set()

    def change(changes: list[tuple[str, str | None]]) -> None:
        for identity, tags in changes:
            if tags is None:
                truth.pop(identity, None)
                ended.add(identity)
            elif identity not in ended:
                truth[identity] = tags
                node.consul.share(identity, tags)
        read_labels(made.watch)

    def script() -> Iterator[Listing]:
        for before, meanwhile, seconds in steps:
            change(before)
            answer = [service(identity, tags) for identity, tags in truth.items()]
            change(meanwhile)
            yield answer
            assert node.consul.shared().items() >= truth.items()
            clock.now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        look(made.swarm, script())


def test_a_manager_shares_what_docker_lists_and_what_changed(node: Node) -> None:
    made = node.registrator()
    for listed in ({"shop": "blue"}, {"shop": "green", "front": "red"}):
        read_labels(made.watch)
        look(made.swarm, iter([[service(identity, tags) for identity, tags in listed.items()]]))
        assert node.consul.shared() == listed


def test_the_labels_of_a_service_are_deleted_a_while_after_its_end(node: Node, clock: Clock) -> None:
    node.consul.share("shop", "blue")
    made = node.registrator()
    read_labels(made.watch)

    def script() -> Iterator[Listing]:
        for _ in range(60):
            yield []
            assert node.consul.shared() == {"shop": "blue"}
            clock.now += 1
        yield []

    look(made.swarm, script())
    assert node.consul.shared() == {}


@pytest.mark.parametrize(
    "interruption",
    [[service("shop", "blue")], EngineError("no quorum"), INACTIVE, WORKER],
    ids=["listed", "no answer", "inactive", "worker"],
)
def test_a_service_that_was_not_missing_all_the_while_keeps_its_labels(
    node: Node, clock: Clock, interruption: Listing
) -> None:
    node.consul.share("shop", "blue")
    made = node.registrator()
    read_labels(made.watch)

    def script() -> Iterator[Listing]:
        for answer in [[], interruption, [], []]:
            yield answer
            clock.now += 50

    look(made.swarm, script())
    # The last look was 50 s after the first one that lacked it again.
    assert node.consul.shared() == {"shop": "blue"}


def test_a_service_that_lost_its_labels_loses_them_on_all_nodes_at_once(node: Node) -> None:
    node.consul.share("shop", "blue")
    made = node.registrator()
    read_labels(made.watch)
    look(made.swarm, iter([[service("shop")]]))
    read_labels(made.watch)
    assert made.watch.labels == {"shop": {}}


# -- tasks of services whose labels aren't known ----------------------------------------------------------


def share_and_announce(node: Node, labels: dict[str, str]) -> None:
    """What a registrator does that could read the labels of a service, and then ended."""
    node.consul.share_labels("shop", labels)
    made = node.registrator()
    read_labels(made.watch)
    turn(made)
    turn(made)


#: Labels that often mean something, and that often undo what others mean.
telling = st.dictionaries(
    st.sampled_from([f"SERVICE_{name}" for name in ("NAME", "ID", "TAGS", "80_IGNORE", "CHECK_TCP", "CHECK_CMD")]),
    st.sampled_from(["site", "true", ""]),
)


@given(telling | metadata, telling | metadata, telling | metadata, states)
def test_a_task_stays_as_it_is_announced_until_the_labels_of_its_service_could_be_read(
    env: dict[str, str], own: dict[str, str], labels: dict[str, str], state: dict[str, Any]
) -> None:
    node = Node([task(tuple(f"{key}={value}" for key, value in env.items()), own, **state)])
    share_and_announce(node, labels)
    before = deepcopy((node.consul.services, node.consul.checks))
    made = node.registrator()
    turn(made)
    assert (node.consul.services, node.consul.checks) == before
    read_labels(made.watch)
    turn(made)
    assert (node.consul.services, node.consul.checks) == before


def test_while_labels_are_not_read_tasks_wait_and_other_containers_do_not(node: Node) -> None:
    node.containers += [task(), plain()]
    made = node.registrator()
    turn(made)
    assert set(node.consul.services) == {"node:plain:80"}
    read_labels(made.watch)
    turn(made)
    assert set(node.consul.services) == {"node:plain:80", "node:shop.1.x:443", "node:shop.1.x:80"}


def test_while_labels_are_not_read_a_task_that_ends_is_taken_back_and_one_that_is_ill_is_reported(node: Node) -> None:
    node.containers.append(task(Health={"Status": "healthy"}))
    share_and_announce(node, {"SERVICE_NAME": "site"})
    made = node.registrator()
    turn(made)
    assert node.consul.statuses() == {"passing"}
    node.containers[0]["State"]["Health"]["Status"] = "unhealthy"
    made = node.registrator()
    turn(made)
    assert node.consul.statuses() == {"critical"}
    assert {one["Service"] for one in node.consul.services.values()} == {"site-80", "site-443"}
    node.containers[0]["State"]["Restarting"] = True
    made = node.registrator()
    turn(made)
    assert node.consul.services == {}


def test_while_labels_are_not_read_the_command_that_they_may_replace_is_not_run(node: Node) -> None:
    node.containers.append(task(labels={"SERVICE_CHECK_SCRIPT": "exit 2"}))
    share_and_announce(node, {"SERVICE_CHECK_SCRIPT": "exit 0"})
    for check in node.consul.checks.values():
        check["Status"] = "passing"
    made = node.registrator()
    turn(made)
    made.commands.start()
    assert not made.wakeups.take(0.5)
    turn(made)
    assert node.consul.statuses() == {"passing"}


def test_while_labels_are_not_read_no_container_takes_the_id_of_a_task(node: Node) -> None:
    node.containers.append(task())
    share_and_announce(node, {"SERVICE_80_ID": "chosen"})
    before = deepcopy(node.consul.services["chosen"])
    node.containers.append(plain("SERVICE_ID=chosen"))
    made = node.registrator()
    turn(made)
    assert node.consul.services["chosen"] == before


def test_a_manager_knows_labels_without_reading_them(node: Node) -> None:
    node.containers.append(task())
    made = node.registrator()
    look(made.swarm, iter([[service("shop", "blue")]]))
    turn(made)
    assert node.consul.services["node:shop.1.x:80"]["Tags"] == ["blue"]


@pytest.mark.parametrize(
    ("refusal", "announced"),
    [
        (Refused("Permission denied", 403), True),
        # As in the first moments of a cluster that was restarted.
        (Refused("ACL not found", 403), False),
        (Refused("No cluster leader", 500), False),
    ],
)
def test_only_a_token_that_may_not_read_labels_does_without_them(
    node: Node, monkeypatch: pytest.MonkeyPatch, refusal: Refused, announced: bool
) -> None:
    def end(_: float) -> None:
        raise SystemExit

    monkeypatch.setattr(time, "sleep", end)
    node.containers.append(task())
    node.consul.refusals.append(refusal)
    made = node.registrator()
    turn(made)
    assert not node.consul.services
    read_labels(made.watch)
    turn(made)
    assert bool(node.consul.services) is announced
