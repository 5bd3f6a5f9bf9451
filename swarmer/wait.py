"""Waiting with a deadline, and saying what was waited for when it does not come."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from swarmer.errors import HostError, PromiseBroken

T = TypeVar("T")

#: Seconds between two words about what is still missing, at least.
_OFTEN = 2.0

#: The one place where deadlines grow for a slow stack (emulated machines): a factor, 1 on nspawn.
slowness = 1.0


def be_patient(measured: float) -> None:
    """Let every deadline grow by the factor that a stack has measured, or that `SWARMER_SLOWNESS` says instead.

    Raises:
        HostError: what the person said is no factor.
    """
    global slowness
    slowness = given_slowness() or measured


def given_slowness() -> float | None:
    """The factor in `SWARMER_SLOWNESS`, or None when it isn't set.

    Raises:
        HostError: it isn't a factor.
    """
    text = os.environ.get("SWARMER_SLOWNESS")
    if not text:
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise HostError(f"SWARMER_SLOWNESS is {text!r}", hint="it is the factor by which deadlines grow, such as 2.5")
    return factor


def patient(seconds: float) -> float:
    """What may take so many seconds on a machine of usual speed, with the patience that this stack needs."""
    return seconds * slowness


class NotYet(Exception):
    """Raised by a probe: the awaited isn't there yet. Its text is the last value that a give-up shows."""


class Hopeless(PromiseBroken):
    """Raised by a probe: the awaited can't come any more, so waiting on would only hide why."""


class GaveUp(PromiseBroken):
    """The deadline passed. The text says what was awaited, the last value, how often and how long."""


@dataclass(frozen=True)
class Wait(Generic[T]):
    """Something awaited until a deadline.

    Args:
        what: the awaited, as a person would say it: "three voters".
        probe: looks once. Returns the value when it is there; raises `NotYet` when it isn't, or
            `Hopeless` when it can't come any more. Errors listed in `pardon` count as "not yet".
        timeout: seconds, multiplied by the stack's slowness.
        interval: seconds between two looks, multiplied as well: to be asked costs a slow node more.
        pardon: exception types that a service on its way up may raise.
        stall: seconds, multiplied as well, in which something new has to happen; None where only `timeout` counts.
        moved: a value that changes whenever something new happened; besides, each text of `NotYet` that wasn't seen
            before is new.
        tell: hears what is seen instead, every two seconds at most, and only when that is something else.
    """

    what: str
    probe: Callable[[], T]
    timeout: float
    interval: float = 0.1
    pardon: tuple[type[Exception], ...] = ()
    tell: Callable[[str], None] = lambda _: None
    stall: float | None = None
    moved: Callable[[], object] = lambda: None

    def __call__(self) -> T:
        """The awaited value.

        Raises:
            GaveUp: the deadline passed, or nothing new happened for `stall` seconds.
            Hopeless: the probe said that it can't come any more.
        """
        start = time.monotonic()
        deadline = start + patient(self.timeout)
        looks = 0
        told, told_at = "", start
        seen: set[object] = set()
        new_at = start
        while True:
            looks += 1
            try:
                return self.probe()
            except NotYet as not_yet:
                last = str(not_yet)
            except self.pardon as error:
                last = f"{type(error).__name__}: {error}"
            now = time.monotonic()
            for sign in (last, ("moved", self.moved())) if self.stall is not None else ():
                if sign not in seen:
                    seen.add(sign)
                    new_at = now
            if self.stall is not None and now - new_at >= patient(self.stall):
                raise GaveUp(
                    f"nothing new for {now - new_at:.1f} s while waiting for {self.what} ({now - start:.1f} s in all, "
                    f"looked {looks} times); last seen: {last}"
                )
            if now >= deadline:
                raise GaveUp(f"waited {now - start:.1f} s for {self.what}, looked {looks} times; last seen: {last}")
            if last != told and now - told_at > _OFTEN:
                told, told_at = last, now
                self.tell(last)
            time.sleep(min(patient(self.interval), max(0.0, deadline - now)))


def until(
    what: str,
    probe: Callable[[], T],
    *,
    timeout: float,
    interval: float = 0.1,
    pardon: tuple[type[Exception], ...] = (),
    tell: Callable[[str], None] = lambda _: None,
    stall: float | None = None,
    moved: Callable[[], object] = lambda: None,
) -> T:
    """Wait for `what` right now: `Wait(what, probe, …)()`."""
    return Wait(what, probe, timeout, interval, pardon, tell, stall, moved)()


def until_equal(
    what: str,
    look: Callable[[], object],
    expected: object,
    *,
    timeout: float,
    interval: float = 0.1,
    pardon: tuple[type[Exception], ...] = (),
) -> None:
    """Wait until `look()` finds exactly what is expected; what it found last is shown when it never does."""

    def probe() -> None:
        if (found := look()) != expected:
            raise NotYet(f"{found!r}, not {expected!r}")

    until(what, probe, timeout=timeout, interval=interval, pardon=pardon)


def until_true(what: str, condition: Callable[[], object], *, timeout: float, interval: float = 0.1) -> None:
    """Wait until `condition()` is true; its last value is shown when it never is."""

    def probe() -> None:
        value = condition()
        if not value:
            raise NotYet(repr(value))

    until(what, probe, timeout=timeout, interval=interval)
