"""Waits: until the condition is met, can't be met any more, or the deadline has passed."""

from collections.abc import Callable
from itertools import count

import pytest

from swarmer import wait
from swarmer.errors import HostError
from swarmer.wait import GaveUp, Hopeless, NotYet, Waiting, until, until_true


class Waits(Waiting):
    """Scales its waits by a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @property
    def slowness(self) -> float:
        return self.factor


WAITS = Waits(1)


def test_the_probe_is_repeated_until_the_condition_is_met() -> None:
    looks = count(1)

    def probe() -> str:
        if (look := next(looks)) < 3:
            raise NotYet(f"look {look}")
        return "there"

    assert until("it", probe, timeout=60, interval=0) == "there"
    assert next(looks) == 4


def test_the_probe_runs_once_even_without_time() -> None:
    assert until("it", lambda: "there", timeout=0) == "there"


def test_giving_up_reports_what_was_awaited_the_last_value_the_looks_and_the_time() -> None:
    def probe() -> None:
        raise NotYet("two of three")

    with pytest.raises(GaveUp, match=r"waited 0\.\d s for three voters, looked \d+ times; last seen: two of three"):
        until("three voters", probe, timeout=0.05, interval=0.01)


def test_a_hopeless_condition_ends_the_wait_immediately() -> None:
    def probe() -> None:
        raise Hopeless("the unit failed")

    with pytest.raises(Hopeless, match="the unit failed"):
        until("it", probe, timeout=3600)


def test_only_errors_in_retry_on_are_retried() -> None:
    def probe() -> None:
        raise ConnectionRefusedError("not listening")

    with pytest.raises(GaveUp, match="last seen: ConnectionRefusedError: not listening"):
        until("it", probe, timeout=0, retry_on=(OSError,))
    with pytest.raises(ConnectionRefusedError):
        until("it", probe, timeout=3600)


def test_a_condition_shows_its_last_value() -> None:
    with pytest.raises(GaveUp, match=r"last seen: \[\]"):
        until_true("members", list, timeout=0)


def test_giving_up_shows_the_found_and_the_expected_value() -> None:
    looks = count(1)
    WAITS.until_equal("the third look", lambda: next(looks), 3, timeout=60, interval=0)
    with pytest.raises(GaveUp, match=r"last seen: \{1\}, not \{2\}"):
        WAITS.until_equal("two", lambda: {1}, {2}, timeout=0)


def test_deadlines_and_intervals_are_scaled_by_the_slowness_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(GaveUp, match=r"looked 5 times"):
        Waits(4).until_true("it", lambda: False, timeout=10, interval=2.5)
    assert now == 40


@pytest.mark.parametrize("text", ["abc", "0", "-1", "inf", "nan"])
def test_a_slowness_that_is_not_a_positive_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SWARMER_SLOWNESS", text)
    with pytest.raises(HostError, match=f"SWARMER_SLOWNESS is '{text}'"):
        wait.given_slowness()


def test_the_slowness_of_the_environment_is_used_unless_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMER_SLOWNESS", "2.5")
    assert wait.given_slowness() == 2.5
    monkeypatch.setenv("SWARMER_SLOWNESS", "")
    assert wait.given_slowness() is None


def test_what_is_missing_is_reported_when_it_changes_but_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def probe() -> None:
        raise NotYet("one" if now < 4 else "two" if now < 4.5 else "three")

    reported: list[str] = []
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(GaveUp):
        until("it", probe, timeout=10, interval=0.5, tell=reported.append)
    assert reported == ["one", "three"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that advances only during `sleep`; the function returns the seconds that have passed."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    return lambda: now


def test_a_wait_ends_if_nothing_new_happens_long_before_its_deadline(clock: Callable[[], float]) -> None:
    """A repeated state, here joining and leaving in turn, isn't new."""

    def probe() -> None:
        raise NotYet("joining" if int(clock()) % 2 else "leaving")

    with pytest.raises(GaveUp, match=r"nothing new for 1\d\.\d s while waiting for it"):
        until("it", probe, timeout=1000, interval=1, stall=10)
    assert clock() <= 12


def _never() -> None:
    raise NotYet("nothing")


def test_a_wait_continues_as_long_as_something_new_happens(clock: Callable[[], float]) -> None:
    def probe() -> str:
        if clock() < 100:
            raise NotYet("members are missing")
        return "there"

    assert until("it", probe, timeout=1000, interval=1, stall=10, moved=lambda: clock() // 8) == "there"
    with pytest.raises(GaveUp, match=r"waited 50\.0 s for it"):
        until(
            "it",
            lambda: until_true("never", bool, timeout=0),
            timeout=50,
            interval=1,
            stall=10,
            moved=clock,
            retry_on=(GaveUp,),
        )


def test_the_stall_time_is_scaled_by_slowness(clock: Callable[[], float]) -> None:
    with pytest.raises(GaveUp, match=r"nothing new for 30\.0 s"):
        Waits(3).until("it", _never, timeout=1000, interval=1, stall=10)
    assert clock() == 30
