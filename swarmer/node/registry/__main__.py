"""The program `swarmer-registry.service`: `python3 -m swarmer.node.registry`."""

import grp
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from swarmer.node.consul_agent import Agent, Refused, own_token
from swarmer.node.registry import health
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.api import Api
from swarmer.node.registry.contents import Contents
from swarmer.node.registry.forwarder import Forwarder
from swarmer.node.registry.health import Health
from swarmer.node.registry.leadership import Leadership
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import Records
from swarmer.node.registry.replication import Replication
from swarmer.node.registry.routing import Router
from swarmer.node.registry.server import serve
from swarmer.node.registry.settings import API_SOCKET, Settings
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

#: The group of nginx's workers, which may use our socket.
_GROUP = "www-data"

#: Seconds between two signs of life for systemd's watchdog; see WatchdogSec of the unit.
_SIGN_OF_LIFE = 10

#: Seconds between two questions to a consul that doesn't know our token yet.
_PAUSE = scaled(0.1)


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    _start(_show_life)
    settings = Settings.load()
    agents = Agents()
    peers = Peers(settings)
    replication = None if settings.shared else Replication(settings, peers)
    forwarder = Forwarder()
    leadership = None
    if replication:
        leadership = Leadership(settings, agents, lambda: replication.complete, forwarder.end_requests)
    look = Health(settings, replication, agents)
    api = Api(settings, Records(agents), leadership, replication, Contents(settings, peers))
    Path(API_SOCKET).unlink(missing_ok=True)
    serve(API_SOCKET, grp.getgrnam(_GROUP).gr_gid, Router(settings, leadership, peers), api, look)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    agent = Agent(own_token("registry"))
    while not agent.knows_us():
        if ended.wait(_PAUSE):
            return 0
    _start(look.watch)
    if replication and leadership:
        _start(replication.follow)
        _start(forwarder.run)
        _start(leadership.watch)
        _start(leadership.run)
    ended.wait()
    if leadership:
        try:
            leadership.resign()
        except Refused as refused:
            logger.info("%s", refused)
    health.deregister()
    # Without the interpreter's own shutdown, which waits for some threads, and makes others fail in the middle of a
    # copy. A copy may be cut off at any moment.
    os._exit(0)


def _show_life() -> None:
    """Report to systemd's watchdog that this process runs; a request in one that hangs ends only with it. Never ends.

    Source: the manual page sd_notify(3).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as watchdog:
        while True:
            watchdog.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
            time.sleep(_SIGN_OF_LIFE)


def _start(work: Callable[[], None]) -> None:
    """Run never-ending work in a thread; if it ends by an error, so does the program, which systemd restarts."""

    def run() -> None:
        try:
            work()
        finally:
            logger.exception("%s ended", work.__qualname__)
            os._exit(1)

    threading.Thread(target=run, name=work.__qualname__, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
