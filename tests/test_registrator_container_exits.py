"""The ends of processes are told at once, each once, and of those alone that are watched."""

import subprocess
from collections.abc import Iterator

import pytest

from swarmer.node.registrator.container_exits import ContainerExits
from swarmer.node.registrator.wakeups import Changes, Wakeups


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def exits(wakeups: Wakeups) -> ContainerExits:
    exits = ContainerExits(wakeups)
    exits.start()
    return exits


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_an_end_is_told(exits: ContainerExits, wakeups: Wakeups, processes: list[subprocess.Popen[bytes]]) -> None:
    exits.follow({"a": processes[0].pid, "b": processes[1].pid})
    assert not wakeups.take(0.1)
    processes[0].kill()
    assert wakeups.take(5) == Changes(ended={"a"})
    assert not wakeups.take(0.1)


def test_what_is_not_followed_any_more_is_not_told(
    exits: ContainerExits, wakeups: Wakeups, processes: list[subprocess.Popen[bytes]]
) -> None:
    exits.follow({"a": processes[0].pid, "b": processes[1].pid})
    exits.follow({"b": processes[1].pid})
    processes[0].kill()
    processes[1].kill()
    assert wakeups.take(5) == Changes(ended={"b"})


def test_a_container_with_another_process_is_watched_anew(
    exits: ContainerExits, wakeups: Wakeups, processes: list[subprocess.Popen[bytes]]
) -> None:
    exits.follow({"a": processes[0].pid})
    exits.follow({"a": processes[1].pid})
    processes[0].kill()
    assert not wakeups.take(0.2)
    processes[1].kill()
    assert wakeups.take(5) == Changes(ended={"a"})


def test_a_process_that_is_gone_already_is_told(exits: ContainerExits, wakeups: Wakeups) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    exits.follow({"a": process.pid})
    assert wakeups.take(5) == Changes(ended={"a"})
