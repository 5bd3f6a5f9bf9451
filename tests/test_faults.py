"""Whatever fails while a cluster is broken or healed, all that was broken is healed, and every error is reported."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import pytest
from fake_node import FakeCluster, FakeNode

from swarmer import faults as faults_module
from swarmer.cluster_node import Node
from swarmer.errors import NodeError, PromiseBroken
from swarmer.faults import Faults
from swarmer.netem import Link
from swarmer.undo import UndoStack


@dataclass(frozen=True)
class Case:
    """A fault, and parts of the commands that break a node and that heal it."""

    fault: Callable[[Faults, list[Node]], AbstractContextManager[None]]
    breaking: str
    healing: str


SEVERAL_NODES = {
    "power_off": Case(lambda faults, nodes: faults.power_off(*nodes), "power_off", "power_on"),
    "stop": Case(lambda faults, nodes: faults.stop(*nodes, unit="consul"), "signal=STOP", "signal=CONT"),
    "partition": Case(lambda faults, nodes: faults.partition(nodes[2:], nodes[:2]), "nft --file", "nft delete"),
    "block": Case(lambda faults, nodes: faults.block(*nodes, port=8300), "nft --file", "nft delete"),
    "bad_link": Case(
        lambda faults, nodes: faults.bad_link(nodes[:2], nodes[2:], Link(loss=0.5)), "tc filter", "qdisc delete"
    ),
}
SINGLE_NODE = {
    "kill": Case(lambda faults, nodes: faults.kill(nodes[1], "consul"), "signal=KILL", "MainPID"),
    "clock": Case(lambda faults, nodes: faults.clock(nodes[1], ahead=3600), "date --set", "date --set"),
}
ALL = SEVERAL_NODES | SINGLE_NODE
POWERED = {name: case for name, case in ALL.items() if name != "power_off"}


def cases(chosen: dict[str, Case]) -> pytest.MarkDecorator:
    """Run a test for each of these faults."""
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


@pytest.fixture
def fakes() -> FakeCluster:
    fakes = FakeCluster()
    for node in fakes.members:
        node.answers += [
            ("MainPID", partial(_consul_pid, node)),
            ("/stat", lambda: "S\n"),
            ("date +", lambda: str(time.time())),
        ]
    return fakes


def _consul_pid(node: FakeNode) -> str:
    return "8" if node.did("signal=KILL") else "7"


@pytest.fixture
def faults(fakes: FakeCluster) -> Faults:
    return Faults(fakes)


def _healed(node: FakeNode, healing: str) -> bool:
    return node.on and node.did(healing)


@cases(ALL)
def test_a_fault_breaks_heals_and_waits_until_the_cluster_has_converged(
    fakes: FakeCluster, faults: Faults, case: Case
) -> None:
    with case.fault(faults, fakes.nodes):
        broken = [node for node in fakes.members if node.did(case.breaking)]
        assert broken
        assert fakes.converged == 0
    assert all(_healed(node, case.healing) for node in broken)
    assert fakes.converged == 1


@cases(SEVERAL_NODES)
def test_when_the_second_of_three_nodes_fails_to_break_the_others_are_healed(
    fakes: FakeCluster, faults: Faults, case: Case
) -> None:
    fakes.members[1].errors.append((case.breaking, NodeError("did not end in time")))
    with pytest.raises(NodeError, match="in time"), case.fault(faults, fakes.nodes):
        pytest.fail("the block must not run")
    for node in fakes.members:
        if node.did(case.breaking):  # a command that timed out may have broken the node all the same
            assert _healed(node, case.healing), node


@cases(SEVERAL_NODES)
def test_when_the_second_of_three_nodes_fails_to_heal_the_others_do_and_it_is_named(
    fakes: FakeCluster,
    faults: Faults,
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults_module, "_RETRIED", ())
    monkeypatch.setattr("swarmer.netem.RETRIED", ())
    with pytest.raises(ExceptionGroup, match="node-2") as raised, case.fault(faults, fakes.nodes):
        fakes.members[1].errors.append((case.healing, NodeError("healing did not end in time")))
    assert "node-1" not in raised.value.message
    assert [str(error) for error in raised.value.exceptions] == ["healing did not end in time"]
    for node in (fakes.members[0], fakes.members[2]):
        assert _healed(node, case.healing), node
    assert fakes.converged == 0


@cases(POWERED)
def test_healing_that_times_out_once_is_tried_again(fakes: FakeCluster, faults: Faults, case: Case) -> None:
    with case.fault(faults, fakes.nodes):
        broken = [node for node in fakes.members if node.did(case.breaking)]
        for node in broken:
            node.errors.append((case.healing, NodeError("did not end in time")))
    assert not any(node.errors for node in broken), "each was raised"
    assert fakes.converged == 1


def test_all_that_can_not_be_healed_is_reported_together(fakes: FakeCluster, faults: Faults) -> None:
    with pytest.raises(ExceptionGroup) as raised, faults.power_off(*fakes.nodes):
        fakes.members[0].errors.append(("power_on", OSError("no power")))
        fakes.members[2].errors.append(("booted", PromiseBroken("no boot")))
    assert raised.value.message == "not undone: node-1, node-3"
    assert {str(error) for error in raised.value.exceptions} == {"no power", "no boot"}
    assert fakes.members[1].events == ["power_off", "power_on", "booted"]
    assert not fakes.members[0].did("booted"), "it was never switched on"


def test_nodes_are_waited_for_when_all_of_them_are_switched_on(fakes: FakeCluster, faults: Faults) -> None:
    order: list[str] = []
    for node in fakes.members:
        node.events = order
    with faults.power_off(*fakes.nodes):
        pass
    assert order == ["power_off"] * 3 + ["power_on"] * 3 + ["booted"] * 3


def test_a_node_that_the_block_switched_on_is_left_alone(fakes: FakeCluster, faults: Faults) -> None:
    with faults.power_off(*fakes.nodes):
        fakes.members[1].on = True
    assert fakes.members[1].events == ["power_off"]


@cases(POWERED)
def test_a_node_that_was_switched_off_meanwhile_is_not_healed(fakes: FakeCluster, faults: Faults, case: Case) -> None:
    with case.fault(faults, fakes.nodes):
        for node in fakes.members:
            node.on = False
            node.events.clear()
    assert not any(node.events for node in fakes.members)


@pytest.mark.parametrize("fault", [lambda f, n: f.kill(n, "consul"), lambda f, n: f.stop(n, unit="consul")])
def test_a_unit_that_is_not_running_is_no_target(
    fakes: FakeCluster, faults: Faults, fault: Callable[[Faults, FakeNode], AbstractContextManager[None]]
) -> None:
    node = fakes.members[0]
    node.answers[0] = ("MainPID", lambda: "0")
    with pytest.raises(PromiseBroken, match="consul isn't running on node-1"), fault(faults, node):
        pytest.fail("the block must not run")
    assert not node.did("systemctl kill")


def test_a_killed_unit_must_come_back_with_another_process(fakes: FakeCluster, faults: Faults) -> None:
    fakes.hurry()
    node = fakes.members[0]
    node.answers[0] = ("MainPID", lambda: "7")
    with pytest.raises(ExceptionGroup) as raised, faults.kill(node, "consul"):
        pass
    assert "consul on node-1 to be restarted" in str(raised.value.exceptions[0])
    assert faults.meant == {("node-1", "consul.service")}


def _fail(error: BaseException) -> None:
    raise error


def test_the_error_of_the_block_is_the_cause_of_what_could_not_be_undone() -> None:
    undone: list[str] = []
    with pytest.raises(ExceptionGroup) as raised, UndoStack() as undo:
        undo.add("first", lambda: undone.append("first"))
        undo.add("second", lambda: _fail(OSError("disk full")))
        raise AssertionError("the scenario's own")
    assert undone == ["first"]
    assert str(raised.value.__cause__) == "the scenario's own"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), pytest.exit.Exception("too late")])
@pytest.mark.parametrize("where", ["block", "step"])
def test_what_ends_the_run_still_does_when_all_is_undone(interruption: BaseException, where: str) -> None:
    undone: list[str] = []
    with pytest.raises(type(interruption)) as raised, UndoStack() as undo:
        undo.add("first", lambda: undone.append("first"))
        undo.add("second", lambda: _fail(OSError("disk full")))
        if where == "block":
            raise interruption
        undo.add("third", lambda: _fail(interruption))
    assert undone == ["first"]
    assert raised.value.__notes__[-1] == "not undone: second\ndisk full"
