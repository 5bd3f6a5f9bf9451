"""The services of the swarm, as a manager sees them.

In a thread of its own: a manager without a quorum answers after many seconds, and the containers of this node can't
wait for that. What is shared with other nodes is written by the same thread, right after the answer: a manager that
gets no answers must not write what it knew once over what others know now.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarmer.node.patience import patient
from swarmer.node.registrator.catalog import Unreachable
from swarmer.node.registrator.engine import DockerAway, Engine, Refused
from swarmer.node.registrator.signals import Changes, Signals
from swarmer.node.registrator.swarm import SwarmService

logger = logging.getLogger(__name__)

#: Seconds between two looks of a manager at its swarm: tasks on other nodes come and go without an event here.
POLL: Final = patient(1.0)


@dataclass(frozen=True)
class Swarm:
    """What this node knows of a swarm.

    Attributes:
        is_manager: whether it manages one.
        services: all of the swarm's when it does, else none; None while nobody could tell.
    """

    is_manager: bool = False
    services: tuple[SwarmService, ...] | None = None


class SwarmWatch(threading.Thread):
    """Asks the engine for the services of the swarm, when woken and, on a manager of any, again and again.

    Attributes:
        swarm: what was last known. A manager that lost its quorum goes on with what it knew.
    """

    def __init__(self, url: str, signals: Signals, share: Callable[[tuple[SwarmService, ...]], bool]) -> None:
        """Begin knowing nothing.

        Args:
            share: called on a manager with the services as it was told of them just now; whether all is shared.
        """
        super().__init__(name="swarm", daemon=True)
        self.engine = Engine(url)
        self.signals = signals
        self.share = share
        self.swarm = Swarm()
        self._shared = True
        self._wake = threading.Event()

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    def run(self) -> None:
        while True:
            # Also while nobody could tell: the answer decides what of the last run is still true.
            polls = self.swarm.services is None or (self.swarm.is_manager and self.swarm.services) or not self._shared
            self._wake.wait(POLL if polls else None)
            self._wake.clear()
            try:
                swarm = self._look()
            except DockerAway:
                continue
            if swarm != self.swarm:
                self.swarm = swarm
                self.signals.report(Changes(consul=True))
            self._shared = not swarm.is_manager or self._share(swarm.services or ())

    def _share(self, services: tuple[SwarmService, ...]) -> bool:
        try:
            return self.share(services)
        except Unreachable as error:
            logger.warning("labels of swarm services can't be shared: %s; trying again", error)
            return False

    def _look(self) -> Swarm:
        """Ask once.

        Raises:
            DockerAway: the engine doesn't answer, or manages a swarm without a quorum.
        """
        try:
            return Swarm(is_manager=True, services=tuple(self.engine.ask("services", status=True)))
        except Refused:
            state = self.engine.ask("info").get("Swarm") or {}
            if state.get("ControlAvailable") or state.get("LocalNodeState") not in ("active", "inactive"):
                raise
            return Swarm(services=())
