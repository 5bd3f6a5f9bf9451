"""When a node gives up its place in the swarm, and when it waits for docker."""

from typing import cast

import pytest

from swarmer.node.swarm.engine import Engine, Membership
from swarmer.node.swarm.member import GIVE_UP, Member
from swarmer.node.swarm.records import Known, Store


class Docker:
    """An engine in one state, which it is told to leave or not."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self.left = False

    def membership(self) -> Membership:
        return self._membership

    def leave(self) -> None:
        self.left = True


class Records:
    """What is recorded of a worker whose disk was replaced: its former self, which counts as down."""

    def member(self) -> Known:
        return Known("former", True)

    def has_leader(self) -> bool:
        return True

    def managers(self) -> tuple[list[str], int]:
        return ["10.0.0.1:2377"], 1

    def record_node(self, _: str) -> None:
        pass


@pytest.mark.parametrize(
    ("state", "node", "leaves"),
    [
        ("pending", "", False),  # joining: docker continues by itself, however long that takes
        ("pending", "gone", True),  # it was a member, and doesn't find its swarm any more
        ("active", "gone", True),
        ("error", "", True),
    ],
)
def test_a_node_that_is_still_joining_does_not_begin_again(
    monkeypatch: pytest.MonkeyPatch, state: str, node: str, leaves: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr("swarmer.node.swarm.member.time.monotonic", lambda: now[0])
    docker = Docker(Membership(state, node, cluster="", manager=False, error="refused" if state == "error" else ""))
    worker = Member({"name": "one", "swarm": "agent"}, {}, cast(Engine, docker), cast(Store, Records()))
    for now[0] in (0.0, GIVE_UP / 2, 2 * GIVE_UP, 20 * GIVE_UP):
        worker.step()
    assert docker.left == leaves
