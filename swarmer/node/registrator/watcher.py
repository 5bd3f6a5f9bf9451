"""The main loop: looks at docker when something has happened, and updates consul."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from swarmer.node.consul_agent import Agent, Refused
from swarmer.node.docker_engine import EngineError
from swarmer.node.registrator.catalog import Catalog, refresh_periods
from swarmer.node.registrator.commands import Commands
from swarmer.node.registrator.container_exits import ContainerExits
from swarmer.node.registrator.events import EventStream
from swarmer.node.registrator.hosts import host_address
from swarmer.node.registrator.inventory import Inventory
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.plan import Plan, desired_services, difference, keep_untouched
from swarmer.node.registrator.services import OWNER, Service, has_failed, is_running, swarm_service_id
from swarmer.node.registrator.shared_labels import LabelWatch, Sharer
from swarmer.node.registrator.swarm_services import announced_labels
from swarmer.node.registrator.swarm_watch import SwarmWatch
from swarmer.node.registrator.wakeups import Backoff, Changes, Timer, Wakeups
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

#: Seconds between two looks at the processes of containers while docker is away.
DEAD_POLL: Final = scaled(0.5)

#: Seconds between two rounds of reports about checks, at least.
MOST_OFTEN: Final = scaled(1.0)

#: Seconds until the next try of what consul refused.
REFUSED_PAUSE: Final = scaled(5.0)


class Registrator:
    """One node's registrator."""

    def __init__(self, options: Options, connect: Callable[[], Agent]) -> None:
        """Prepare; nothing is read or written yet.

        Args:
            connect: makes a client of the consul agent.
        """
        self.options = options
        self.wakeups = Wakeups()
        self.catalog = Catalog(connect())
        self.inventory = Inventory(options.docker, with_ended=not options.deregister_always)
        self.events = EventStream(options.docker, self.wakeups)
        self.watch = LabelWatch(connect(), self.wakeups)
        sharer = Sharer(self.watch, connect(), options.labels_token)
        self.swarm = SwarmWatch(options.docker, self.wakeups, sharer)
        self.exits = ContainerExits(self.wakeups)
        self.commands = Commands(options.docker, self.wakeups)
        self.host_address = ""
        self._todo = Changes(everything=True, swarm=True)
        self._reported: dict[str, float] = {}
        self._backoff = Backoff()
        self._resync = Timer(options.resync or math.inf)
        self._beat = Timer(MOST_OFTEN)
        self._dead = Timer(DEAD_POLL)
        self._retry = Timer(math.inf)

    def start(self) -> None:
        """Wait for consul, as often as the options say.

        Raises:
            Refused: it never answered.
        """
        reported = ""
        for attempt in itertools.count():
            try:
                self.host_address = self.options.ip or host_address(self.catalog.address(), self.options.hostname)
                self.catalog.services()
                self.catalog.check_known()
                return
            except Refused as error:
                if attempt == self.options.retry_attempts:
                    raise
                if reported != str(error):
                    reported = str(error)
                    logger.warning("cannot reach consul at %r: %s", self.options.consul, error)
                time.sleep(self.options.retry_interval)

    def forget_stale_services(self, folder: Path) -> None:
        """On the first run since the machine booted: remove the services that were registered before.

        Their containers ended with the machine, and docker may take a while to report that.

        Args:
            folder: a folder that a reboot empties.

        Raises:
            Refused: consul didn't answer.
        """
        mark = folder / "started"
        if mark.exists():
            return
        ours = [service.id for service in self.catalog.services() if service.meta.get(OWNER) == self.options.hostname]
        self.catalog.apply(Plan(deregister=tuple(sorted(ours))))
        mark.touch()

    def run(self) -> None:
        """Keep consul up to date with docker. Never ends."""
        self.events.start()
        self.watch.start()
        self.swarm.start()
        self.commands.start()
        self.exits.start()
        now = time.monotonic()
        self._resync.at = now + self._resync.period
        while True:
            self._todo.add(self.wakeups.take(self._pause()))
            self.turn(time.monotonic())

    def turn(self, now: float) -> None:
        """One turn of the loop: look at what is due, then update consul. What fails is retried later."""
        if self._resync.due(now):
            self._todo.add(Changes(everything=True, swarm=True))
        needed = any([self._retry.due(now), self._beat.due(now), bool(self._todo)])
        try:
            if self._take_ended():
                # Before docker is asked: it answers for a container only when it has cleaned up behind it.
                self._agree(now)
            if self.events.connected.is_set():
                self._look()
            elif self._dead.due(now) and self.options.deregister_always:
                # Else what has failed may have to stay, and only docker knows the exit status.
                needed |= self.inventory.drop_dead()
            if needed and self.inventory.complete:
                self._agree(now)
            self._backoff.reset()
        except (EngineError, Refused) as error:
            logger.warning("%s: %s; trying again", type(error).__name__, error)
            self._retry.at = now + self._backoff.next()

    def _take_ended(self) -> bool:
        """Forget the containers whose process has ended; whether there were any."""
        ended, self._todo.ended = self._todo.ended, set()
        return self.options.deregister_always and self.inventory.complete and self.inventory.drop_dead(ended)

    def _pause(self) -> float:
        """Seconds until something is due."""
        timers = [self._resync, self._beat, self._retry]
        if not self.events.connected.is_set():
            self._dead.at = min(self._dead.at, time.monotonic() + DEAD_POLL)
            timers.append(self._dead)
        return max(0.0, min(3600.0, *(timer.at - time.monotonic() for timer in timers)))

    def _look(self) -> None:
        """Update the inventory; what fails is left for the next turn."""
        if self._todo.everything:
            self.inventory.look_at_all()
        # Also after a comparison of everything: a list doesn't show all that an event is about.
        self.inventory.look_at(self._todo.containers)
        if self._todo.swarm:
            self.swarm.wake()
        self._todo = Changes(consul=self._todo.consul)
        if self.options.deregister_always:
            self.exits.follow(self.inventory.processes())

    def _agree(self, now: float) -> None:
        """Make consul have the services of the inventory."""
        swarm = self.swarm.swarm
        known = {service["ID"]: announced_labels(service) for service in swarm.services or ()}
        # Before `labels` is asked for: the watch may read the store in between.
        unknown = self._unknown_tasks(known)
        services = desired_services(
            self.inventory.containers,
            swarm.services or (),
            self.options,
            host_address=self.host_address,
            labels={**self.watch.labels, **known},
            open_ports=swarm.open_ports,
        )
        registered = self.catalog.services()
        services = keep_untouched(services, registered, unknown)
        self.commands.follow({check.id: check.command for one in services for check in one.checks if check.command})
        services = [self.commands.with_outcomes(service) for service in services]
        keep = unknown | {identity[:12] for identity, one in self.inventory.containers.items() if has_failed(one)}
        if swarm.services is None:
            # Services without a container are those of the swarm, which isn't known yet.
            keep.add("")
        plan = difference(
            services,
            registered,
            hostname=self.options.hostname,
            keep=keep,
            due=self._due(services, now),
        )
        refused = self.catalog.apply(plan)
        reported = {check.id for check in plan.report} | {
            check.id for service in plan.register for check in service.checks
        }
        for identity in reported - set(refused):
            self._reported[identity] = now
        refresh = refresh_periods(services)
        next_report = min((self._reported.get(one, now) + period for one, period in refresh.items()), default=math.inf)
        self._beat.at = max(next_report, now + MOST_OFTEN)
        self._todo.consul = False
        if refused:
            # Consul doesn't know our token yet, or what a container asks for can't be had: no need to hurry.
            self._retry.at = now + REFUSED_PAUSE

    def _unknown_tasks(self, known: Collection[str]) -> set[str]:
        """The running tasks of swarm services whose labels aren't known yet: they may change what is announced.

        Args:
            known: IDs of the services that docker has listed.

        Returns:
            The first twelve characters of the IDs of the containers.
        """
        if not self.watch.unread:
            return set()
        return {
            identity[:12]
            for identity, one in self.inventory.containers.items()
            if is_running(one) and (service := swarm_service_id(one)) and service not in known
        }

    def _due(self, services: list[Service], now: float) -> set[str]:
        """The checks whose status has to be reported again. None while docker is away, which is the source of it."""
        refresh = refresh_periods(services)
        self._reported = {identity: at for identity, at in self._reported.items() if identity in refresh}
        if not self.events.connected.is_set():
            return set()
        # A little early rather than late: the loop is never on time to the millisecond.
        return {
            identity
            for identity, period in refresh.items()
            if now - self._reported.get(identity, -math.inf) >= 0.9 * period
        }
