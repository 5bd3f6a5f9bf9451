"""The services of the swarm, as a manager sees them.

They have a thread of their own: a manager without a quorum answers after many seconds, and the containers of this node
can't wait for that. The same thread writes what is shared with other nodes, right after the answer: a manager that
gets no answers must not overwrite newer values with its old ones.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from swarmer.node.consul_agent import Refused
from swarmer.node.docker_engine import EngineError, EngineRefused
from swarmer.node.registrator.engine import Engine
from swarmer.node.registrator.mesh import ClosedPorts, open_ports
from swarmer.node.registrator.shared_labels import Entry, Sharer
from swarmer.node.registrator.swarm_services import SwarmService, forwarded_ports
from swarmer.node.registrator.wakeups import Changes, Lasting, Wakeups
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

#: Seconds between two looks of a manager at its swarm: tasks on other nodes come and go without an event here.
POLL: Final = scaled(1.0)

#: Seconds for which every look has to show that this node manages no swarm, until that is believed: while docker makes
#: a new cluster of a manager (`--force-new-cluster`), it answers so too, for a moment.
SURE: Final = scaled(3.0)

_NO_MANAGER: Final = "no manager"


@dataclass(frozen=True)
class Swarm:
    """What this node knows of a swarm.

    Attributes:
        is_manager: whether it manages one.
        services: all of the swarm's when it does, else none; None while nobody could tell.
        open_ports: the ports of the routing mesh that docker forwards on this node, such as `80/tcp`.
    """

    is_manager: bool = False
    services: tuple[SwarmService, ...] | None = None
    open_ports: frozenset[str] = frozenset()


class SwarmWatch(threading.Thread):
    """Asks the engine for the services of the swarm, when woken and, on a manager of any, again and again.

    Attributes:
        swarm: what was last known. A manager that lost its quorum goes on with what it knew.
        listening: on which ports this machine listens; None if the engine is on another one.
    """

    def __init__(self, url: str, wakeups: Wakeups, sharer: Sharer) -> None:
        """Begin without a state.

        Args:
            sharer: gets the services, on a manager, as soon as docker has listed them.
        """
        super().__init__(name="swarm", daemon=True)
        self.engine = Engine(url)
        self.wakeups = wakeups
        self.sharer = sharer
        self.swarm = Swarm()
        self.listening: Callable[[], frozenset[str]] | None = open_ports if url.startswith("unix:") else None
        self._closed = ClosedPorts()
        self._shared = True
        self._doubted = False
        self._denials = Lasting(SURE)
        self._wake = threading.Event()

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    def run(self) -> None:
        while True:
            self._wake.wait(POLL if self._polls() else None)
            self._wake.clear()
            # Before docker is asked: what other managers write after that is newer than its answer.
            entries = self.sharer.watch.entries
            try:
                swarm = self._look()
            except EngineError:
                self._denials.look(())
                self.sharer.interrupt()
                continue
            self._take(swarm, entries)

    def _polls(self) -> bool:
        """Whether the next look is soon. Until docker has answered, too: that decides what of the last run is true."""
        swarm = self.swarm
        return swarm.services is None or bool(swarm.services) or self._doubted or not self._shared

    def _take(self, swarm: Swarm, entries: Mapping[str, Entry] | None) -> None:
        """Report what a look changed, and share what it showed.

        Args:
            entries: what the store held before docker was asked.
        """
        sure = bool(self._denials.look(() if swarm.is_manager else (_NO_MANAGER,)))
        self._doubted = not swarm.is_manager and not sure
        if not swarm.is_manager:
            self.sharer.interrupt()
        if self._doubted:
            return
        if swarm != self.swarm:
            self.swarm = swarm
            self.wakeups.report(Changes(consul=True))
        self._shared = not swarm.is_manager or self._share(swarm.services or (), entries)

    def _share(self, services: tuple[SwarmService, ...], entries: Mapping[str, Entry] | None) -> bool:
        try:
            return self.sharer.share(services, entries)
        except Refused as error:
            logger.warning("cannot share labels of swarm services: %s; retrying", error)
            return False

    def _look(self) -> Swarm:
        """Ask once.

        Raises:
            EngineError: the engine doesn't answer, or manages a swarm without a quorum.
        """
        try:
            services = tuple(self.engine.services())
            return Swarm(is_manager=True, services=services, open_ports=self._forwarded(services))
        except EngineRefused:
            if self.engine.swarm_state() not in ("active/worker", "inactive"):
                raise
            return Swarm(services=())

    def _forwarded(self, services: Collection[SwarmService]) -> frozenset[str]:
        """The ports of the mesh that docker forwards; those that it doesn't are logged."""
        ports = frozenset(forwarded_ports(services))
        if self.listening is None:
            return ports
        listening = self.listening() if ports else ports
        self._closed.look(ports - listening)
        return ports & listening
