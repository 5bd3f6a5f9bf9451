"""Waits with a deadline. On giving up, a wait reports what it waited for, the last value, the looks and the time."""

import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

from swarmer import interrupts
from swarmer.errors import HostError, PromiseBroken

T = TypeVar("T")

#: The shortest time between two reports of what is still missing, in seconds.
_REPORT_INTERVAL = 2.0


def given_slowness() -> float | None:
    """The factor in `SWARMER_SLOWNESS`, or None if the variable isn't set.

    Raises:
        HostError: its value isn't a positive number.
    """
    text = os.environ.get("SWARMER_SLOWNESS")
    if not text:
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise HostError(
            f"SWARMER_SLOWNESS is {text!r}, not a positive number",
            hint="set it to the factor by which deadlines are multiplied, such as 2.5",
        )
    return factor


class NotYet(Exception):
    """Raised by a probe: the condition isn't met yet. Its text is the last value that `GaveUp` shows."""


class Hopeless(PromiseBroken):
    """Raised by a probe: the condition can't be met any more, so waiting longer would only hide the reason."""


class GaveUp(PromiseBroken):
    """The deadline passed. The text names what was awaited, the last value, the number of looks and the time."""


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
    """Wait for a condition on this host. For conditions on nodes, use `until` of the cluster or the node.

    Args:
        what: what is awaited, as in "three voters".
        probe: looks once. Returns the value if the condition is met; raises `NotYet` if it isn't, or
            `Hopeless` if it can't be met any more. Errors listed in `retry_on` count as "not yet".
        timeout: seconds until the wait gives up.
        interval: seconds between two looks.
        retry_on: exception types that a service may raise while it starts.
        stall: seconds within which something new must happen; None if only `timeout` counts.
        moved: returns a value that changes whenever something new has happened. A text of `NotYet` that wasn't seen
            before also counts as new.
        tell: receives the current state, at most every two seconds and only if it has changed.
        slowness: a factor for all these seconds, `interval` included, since each look costs a slow node more as well.

    Raises:
        GaveUp: the deadline passed, or nothing new happened for `stall` seconds.
        Hopeless: the probe reported that the condition can't be met any more.
    """
    start = time.monotonic()
    deadline = start + timeout * slowness
    looks = 0
    last_reported, reported_at = "", start
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
        for event in (last, ("moved", moved())) if stall is not None else ():
            if event not in seen:
                seen.add(event)
                new_at = now
        if stall is not None and now - new_at >= stall * slowness:
            raise GaveUp(
                f"nothing new for {now - new_at:.1f} s while waiting for {what} ({now - start:.1f} s in all, "
                f"looked {looks} times); last seen: {last}"
            )
        if now >= deadline:
            raise GaveUp(f"waited {now - start:.1f} s for {what}, looked {looks} times; last seen: {last}")
        if last != last_reported and now - reported_at > _REPORT_INTERVAL:
            last_reported, reported_at = last, now
            tell(last)
        interrupts.sleep(min(interval * slowness, max(0.0, deadline - now)))


def until_true(
    what: str, condition: Callable[[], object], *, timeout: float, interval: float = 0.1, slowness: float = 1.0
) -> None:
    """Wait until `condition()` is true; `GaveUp` shows its last value. Otherwise like `until`."""

    def probe() -> None:
        value = condition()
        if not value:
            raise NotYet(repr(value))

    until(what, probe, timeout=timeout, interval=interval, slowness=slowness)


class Waiting:
    """Waits whose deadlines are scaled by the slowness of the machines; the base of a cluster and a node."""

    @property
    def slowness(self) -> float:
        """The factor by which deadlines are multiplied: 1 on nspawn, more on emulated machines."""
        raise NotImplementedError

    def scaled(self, seconds: float) -> float:
        """The time on these machines for something that takes `seconds` on a machine of normal speed."""
        return seconds * self.slowness

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass, scaled: for what must not happen meanwhile. A signal or a deadline ends it."""
        interrupts.sleep(self.scaled(seconds))

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
        """Wait for a condition on the nodes: `swarmer.wait.until` with all times scaled.

        Raises:
            GaveUp, Hopeless: as `swarmer.wait.until`.
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
        """Wait until `look()` returns `expected`; `GaveUp` shows its last value."""

        def probe() -> None:
            if (found := look()) != expected:
                raise NotYet(f"{found!r}, not {expected!r}")

        self.until(what, probe, timeout=timeout, interval=interval, retry_on=retry_on)

    def until_true(self, what: str, condition: Callable[[], object], *, timeout: float, interval: float = 0.1) -> None:
        """Wait until `condition()` is true; `GaveUp` shows its last value."""
        until_true(what, condition, timeout=timeout, interval=interval, slowness=self.slowness)
