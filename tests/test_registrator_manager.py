"""A registrator that can't know whether its node manages a swarm leaves the ports of the routing mesh as they are."""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_node import INACTIVE, WORKER, Clock, Docker, Listing, Node, look, read_labels, service, turn

from swarmer.node.docker_engine import EngineError
from swarmer.node.registrator import swarm_watch
from swarmer.node.registrator.swarm_watch import Swarm


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize("denial", [INACTIVE, WORKER], ids=["inactive", "worker"])
def test_ports_of_the_mesh_stay_when_docker_does_not_know_its_swarm_for_a_moment(
    node: Node, clock: Clock, denial: str
) -> None:
    made = node.registrator()
    read_labels(made.watch)

    answers: list[Listing] = [
        [service("shop")],
        denial,
        denial,
        EngineError("starting"),
        denial,
        denial,
        [service("shop")],
    ]

    def script() -> Iterator[Listing]:
        for answer in answers:
            yield answer
            turn(made)
            assert set(node.consul.services) == {"node:shop@mesh:8080"}
            clock.now += 2
        for _ in range(3):
            yield denial
            clock.now += 2

    look(made.swarm, script())
    turn(made)
    assert node.consul.services == {}


@given(st.lists(st.tuples(st.sampled_from(["manager", "denial", "no answer"]), st.floats(0, 5)), max_size=12))
def test_that_a_node_manages_nothing_is_believed_when_every_look_of_some_seconds_shows_it(
    steps: list[tuple[str, float]],
) -> None:
    clock = Clock()
    answers: dict[str, Listing] = {
        "manager": [service("shop")],
        "denial": INACTIVE,
        "no answer": EngineError("starting"),
    }
    made = Node().registrator()

    def script() -> Iterator[Listing]:
        expected, since = Swarm(), None
        for kind, seconds in steps:
            yield deepcopy(answers[kind])
            if kind != "denial":
                since = None
            elif since is None:
                since = clock.now
            if kind == "manager":
                expected = Swarm(True, (service("shop"),), frozenset({"8080/tcp"}))
            elif since is not None and clock.now - since >= swarm_watch.SURE:
                expected = Swarm(services=())
            assert made.swarm.swarm == expected
            clock.now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        look(made.swarm, script())


def test_a_node_that_seems_to_manage_nothing_any_more_looks_again_by_itself(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_watch, "POLL", 0.01)
    monkeypatch.setattr(swarm_watch, "SURE", 0.1, raising=False)
    made = node.registrator()
    read_labels(made.watch)
    looks: list[float] = []

    def script() -> Iterator[Listing]:
        # Without services it looks when it is woken, which is once here.
        yield []
        yield INACTIVE
        yield EngineError("starting")
        while True:
            looks.append(time.monotonic())
            yield INACTIVE

    engine: Any = Docker(script=script())
    made.swarm.engine = engine
    made.swarm.start()
    until(lambda: made.swarm.swarm.is_manager)
    made.swarm.wake()
    until(lambda: not made.swarm.swarm.is_manager)
    assert looks and looks[-1] - looks[0] >= 0.05
    seen = len(looks)
    time.sleep(0.1)
    assert len(looks) == seen


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
