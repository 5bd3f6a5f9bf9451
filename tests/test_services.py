"""The services of a scenario are removed, whatever fails on the way."""

import pytest
from fake_node import FakeCluster

from swarmer.errors import NodeError, PromiseBroken
from swarmer.services import Services


@pytest.fixture
def fakes() -> FakeCluster:
    fakes = FakeCluster()
    fakes.hurry()
    return fakes


def test_what_can_not_be_removed_keeps_nothing_else_from_being_removed(fakes: FakeCluster) -> None:
    services = Services(fakes)
    services.make("network", "inside")
    services.create("first", "busybox")
    services.create("second", "busybox")
    leader = fakes.members[0]
    leader.answers.append(("--quiet --filter label=com.docker.swarm.service.name=first", lambda: "a-container"))
    leader.errors += [("service rm second", PromiseBroken("docker is dead"))]
    with pytest.raises(ExceptionGroup) as raised:
        services.remove_all()
    assert raised.value.message == "not undone: service second, containers"
    assert "1 containers of first on node-1" in str(raised.value.exceptions[1])
    removals = [event for event in leader.events if " rm " in event]
    assert removals == ["docker service rm second", "docker service rm first", "docker network rm inside"]


def test_a_node_that_does_not_answer_once_is_asked_again(fakes: FakeCluster) -> None:
    services = Services(fakes)
    services.create("first", "busybox")
    fakes.members[0].errors.append(("service rm first", NodeError("did not end in time")))
    fakes.members[1].errors.append(("docker ps", NodeError("did not end in time")))
    services.remove_all()
    assert not fakes.members[0].errors + fakes.members[1].errors
