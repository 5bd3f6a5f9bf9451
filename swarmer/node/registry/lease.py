"""The right to change the registry, for as long as it is proven.

Consul's leader confirmed at some moment that our session holds the lock. It gives the lock to no other session until
ours has ended and then the lock-delay has passed. So until a lock-delay after we *asked*, no other session holds it,
whatever happened since: the machine was suspended, the network was cut. The clock also runs while the machine is
suspended.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from swarmer.node.slowness import scaled

#: Seconds for which consul gives the lock to no other session after its holder's session ended.
LOCK_DELAY: Final = scaled(1.5)

#: Seconds for which a proof is valid, from before it was asked for. Less than the lock-delay: two clocks may differ in
#: speed, and a request that began in time may take a moment to end.
LEASE: Final = scaled(1.2)


def awake_or_not() -> float:
    """Seconds by a clock that can't be set, and doesn't stop while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The proof that this node leads, and its end."""

    def __init__(self, clock: Callable[[], float] = awake_or_not) -> None:
        self._clock = clock
        self._session = ""
        self._deadline = float("-inf")
        self._changed = threading.Condition()

    def now(self) -> float:
        """The time by the lease's clock."""
        return self._clock()

    def prove(self, session: str, asked: float) -> None:
        """Consul confirmed that `session` holds the lock, to a question of the time `asked`."""
        with self._changed:
            self._session, self._deadline = session, asked + LEASE
            self._changed.notify_all()

    def end(self) -> None:
        """This node doesn't lead, or no longer does."""
        with self._changed:
            self._session, self._deadline = "", float("-inf")

    def session(self) -> str | None:
        """The session that holds the lock; None if that isn't proven now."""
        with self._changed:
            return self._session if self._session and self._clock() < self._deadline else None

    def wait(self, timeout: float) -> str | None:
        """As `session`, once it is proven or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._session and self._clock() < self._deadline, timeout)
        return self.session()
