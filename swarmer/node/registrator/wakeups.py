"""What has happened since the main loop last looked: threads add to it, the loop empties it."""

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Changes:
    """What has to be looked at again.

    Attributes:
        containers: IDs of containers.
        ended: IDs of containers whose process has ended, before docker has reported it.
        everything: compare all with docker's list.
        swarm: ask for the services of the swarm.
        consul: the agent was away, or what it shares has changed.
    """

    containers: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    everything: bool = False
    swarm: bool = False
    consul: bool = False

    def __bool__(self) -> bool:
        return bool(self.containers or self.ended or self.everything or self.swarm or self.consul)

    def add(self, other: "Changes") -> None:
        """Join other changes to these."""
        self.containers |= other.containers
        self.ended |= other.ended
        self.everything |= other.everything
        self.swarm |= other.swarm
        self.consul |= other.consul


class Wakeups:
    """The changes that threads report to the loop."""

    def __init__(self) -> None:
        self._changes = Changes()
        self._condition = threading.Condition()

    def report(self, changes: Changes) -> None:
        """Add changes, and wake the loop."""
        with self._condition:
            self._changes.add(changes)
            self._condition.notify_all()

    def take(self, timeout: float) -> Changes:
        """Everything reported since the last call; waits up to `timeout` seconds for something."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._changes), timeout)
            changes, self._changes = self._changes, Changes()
            return changes


@dataclass
class Timer:
    """Something that is due again and again.

    Attributes:
        period: seconds.
        at: when it is due next, on the monotonic clock.
    """

    period: float
    at: float = math.inf

    def due(self, now: float) -> bool:
        """Whether it is due; if so, it restarts."""
        if now < self.at:
            return False
        self.at = now + self.period
        return True


class Backoff:
    """Growing pauses between tries: each twice as long as the one before, up to a bound."""

    def __init__(self, first: float = 0.1, most: float = 5.0) -> None:
        self.first = first
        self.most = most
        self._next = first

    def next(self) -> float:
        """Seconds until the next try."""
        pause, self._next = self._next, min(self.most, self._next * 2)
        return pause

    def reset(self) -> None:
        """A try succeeded."""
        self._next = self.first


class Lasting:
    """What every look has shown for some time, without a break."""

    def __init__(self, period: float) -> None:
        """Nothing was seen yet.

        Args:
            period: seconds.
        """
        self.period = period
        self._since: dict[str, float] = {}

    def look(self, shown: Iterable[str]) -> set[str]:
        """Take what one look shows; what each look has shown for the period."""
        now = time.monotonic()
        self._since = {one: self._since.get(one, now) for one in shown}
        return {one for one, since in self._since.items() if now - since >= self.period}
