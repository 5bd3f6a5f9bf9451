"""Converts docker's event stream to changes for the main loop."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from swarmer.node.docker_engine import Engine, EngineError
from swarmer.node.registrator.wakeups import Backoff, Changes, Wakeups

logger = logging.getLogger(__name__)

#: Only what matters: every run of a HEALTHCHECK makes three more events.
_FILTERS: Final = {
    "type": ["container", "network", "service", "node"],
    "event": [
        *("start", "die", "destroy", "rename", "pause", "unpause", "health_status"),
        *("connect", "disconnect"),
        *("create", "update", "remove"),
    ],
}
_IGNORED: Final = frozenset({("container", "create"), ("container", "update"), ("network", "create")})


def changes_of(event: Mapping[str, Any]) -> Changes:
    """The changes that an event implies."""
    kind, action = event.get("Type", ""), event.get("Action", "")
    actor = event.get("Actor") or {}
    if (kind, action) in _IGNORED:
        return Changes()
    if kind == "container":
        return Changes(containers={actor["ID"]}) if actor.get("ID") else Changes()
    if kind == "network":
        container = (actor.get("Attributes") or {}).get("container")
        return Changes(containers={container}) if container else Changes()
    # Of a node too: this one may have become a manager.
    return Changes(swarm=True) if kind in ("service", "node") else Changes()


class EventStream(threading.Thread):
    """Follows the events of docker on a connection of its own. Never ends.

    Whenever it has subscribed, it asks for a comparison of everything: docker remembers only its last 256
    events. `connected` is set while there is a subscription.
    """

    def __init__(self, url: str, wakeups: Wakeups) -> None:
        super().__init__(name="events", daemon=True)
        self.engine = Engine(url)
        self.wakeups = wakeups
        self.connected = threading.Event()
        # Docker subscribes a moment after it has answered, so that even the first request looks back.
        self._since = f"{time.time() - 1:.9f}"

    def run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._listen(backoff)
                logger.warning("docker closed the event stream")
            except EngineError as error:
                logger.warning("no events from docker: %s", error)
            self.connected.clear()
            self.wakeups.report(Changes(consul=True))
            time.sleep(backoff.next())

    def _listen(self, backoff: Backoff) -> None:
        for event in self.engine.events(urlencode({"since": self._since, "filters": json.dumps(_FILTERS)})):
            if not event:
                self.connected.set()
                self.wakeups.report(Changes(everything=True, swarm=True))
                continue
            backoff.reset()
            if nanoseconds := event.get("timeNano"):
                self._since = f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"
            if changes := changes_of(event):
                self.wakeups.report(changes)
