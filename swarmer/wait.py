"""Waiting with a deadline. A wait that gives up reports what it waited for, the last value, how often and how long."""

import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

from swarmer.errors import HostError, PromiseBroken

T = TypeVar("T")

#: Seconds between two reports of what is still missing, at least.
_OFTEN = 2.0


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


class NotYet(Exception):
    """Raised by a probe: the awaited isn't there yet. Its text is the last value that a give-up shows."""


class Hopeless(PromiseBroken):
    """Raised by a probe: the awaited can't come any more, so waiting on would only hide why."""


class GaveUp(PromiseBroken):
    """The deadline passed. The text says what was awaited, the last value, how often and how long."""


def until(
    what: str,
    probe: Callable[[], T],
    *,
    timeout: float,
    interval: float = 0.1,
    retry_on: tuple[type[Exception], ...] = (),
    tell: Callable[[str], None] = lambda _: None,
    stall: float | None = None,
    moved: Callable[[], object] = lambda: None,
    slowness: float = 1.0,
) -> T:
    """Wait for something on this host. For what happens on nodes, use `until` of the cluster or the node.

    Args:
        what: what is awaited, as in "three voters".
        probe: looks once. Returns the value when it is there; raises `NotYet` when it isn't, or
            `Hopeless` when it can't come any more. Errors listed in `retry_on` count as "not yet".
        timeout: seconds.
        interval: seconds between two looks.
        retry_on: exception types that a service on its way up may raise.
        stall: seconds in which something new has to happen; None where only `timeout` counts.
        moved: a value that changes whenever something new happened; besides, each text of `NotYet` that wasn't seen
            before is new.
        tell: receives what is seen instead, every two seconds at most, and only when it has changed.
        slowness: a factor for all these seconds: each look costs a slow node more, too.

    Raises:
        GaveUp: the deadline passed, or nothing new happened for `stall` seconds.
        Hopeless: the probe reported that it can't come any more.
    """
    start = time.monotonic()
    deadline = start + timeout * slowness
    looks = 0
    told, told_at = "", start
    seen: set[object] = set()
    new_at = start
    while True:
        looks += 1
        try:
            return probe()
        except NotYet as not_yet:
            last = str(not_yet)
        except retry_on as error:
            last = f"{type(error).__name__}: {error}"
        now = time.monotonic()
        for sign in (last, ("moved", moved())) if stall is not None else ():
            if sign not in seen:
                seen.add(sign)
                new_at = now
        if stall is not None and now - new_at >= stall * slowness:
            raise GaveUp(
                f"nothing new for {now - new_at:.1f} s while waiting for {what} ({now - start:.1f} s in all, "
                f"looked {looks} times); last seen: {last}"
            )
        if now >= deadline:
            raise GaveUp(f"waited {now - start:.1f} s for {what}, looked {looks} times; last seen: {last}")
        if last != told and now - told_at > _OFTEN:
            told, told_at = last, now
            tell(last)
        time.sleep(min(interval * slowness, max(0.0, deadline - now)))


def until_true(
    what: str, condition: Callable[[], object], *, timeout: float, interval: float = 0.1, slowness: float = 1.0
) -> None:
    """Wait until `condition()` is true; its last value is shown if it never is. Otherwise as `until`."""

    def probe() -> None:
        value = condition()
        if not value:
            raise NotYet(repr(value))

    until(what, probe, timeout=timeout, interval=interval, slowness=slowness)


class Waiting:
    """Waits that grow with the slowness of the machines they wait for: a cluster, or a node, has them."""

    @property
    def slowness(self) -> float:
        """The factor by which deadlines grow: 1 on nspawn, more on emulated machines."""
        raise NotImplementedError

    def scaled(self, seconds: float) -> float:
        """The seconds here for something that takes so many on a machine of usual speed."""
        return seconds * self.slowness

    def until(
        self,
        what: str,
        probe: Callable[[], T],
        *,
        timeout: float,
        interval: float = 0.1,
        retry_on: tuple[type[Exception], ...] = (),
        tell: Callable[[str], None] = lambda _: None,
        stall: float | None = None,
        moved: Callable[[], object] = lambda: None,
    ) -> T:
        """Wait for something on the nodes: `swarmer.wait.until`, with all its seconds scaled.

        Raises:
            GaveUp, Hopeless: as there.
        """
        return until(
            what,
            probe,
            timeout=timeout,
            interval=interval,
            retry_on=retry_on,
            tell=tell,
            stall=stall,
            moved=moved,
            slowness=self.slowness,
        )

    def until_equal(
        self,
        what: str,
        look: Callable[[], object],
        expected: object,
        *,
        timeout: float,
        interval: float = 0.1,
        retry_on: tuple[type[Exception], ...] = (),
    ) -> None:
        """Wait until `look()` finds exactly what is expected; what it found last is shown if it never does."""

        def probe() -> None:
            if (found := look()) != expected:
                raise NotYet(f"{found!r}, not {expected!r}")

        self.until(what, probe, timeout=timeout, interval=interval, retry_on=retry_on)

    def until_true(self, what: str, condition: Callable[[], object], *, timeout: float, interval: float = 0.1) -> None:
        """Wait until `condition()` is true; its last value is shown if it never is."""
        until_true(what, condition, timeout=timeout, interval=interval, slowness=self.slowness)
