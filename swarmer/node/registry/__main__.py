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
from functools import partial
from pathlib import Path

from swarmer.node.consul_agent import Agent, Refused, own_token
from swarmer.node.registry import health
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.api import Api
from swarmer.node.registry.contents import Contents
from swarmer.node.registry.forwarder import Forwarder
from swarmer.node.registry.health import Health
from swarmer.node.registry.holdings import Holdings
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
    settings = Settings.load()
    agents = Agents()
    peers = Peers(settings)
    records = Records(agents)
    replication = None if settings.shared else Replication(settings, peers)
    holdings = Holdings(records, replication) if replication else None
    _start(partial(_show_life, holdings.status if holdings else lambda: "all content is in the bucket"))
    forwarder = Forwarder()
    leadership = None
    if holdings:
        leadership = Leadership(settings, agents, lambda: holdings.complete, forwarder.end_requests)
    look = Health(settings, holdings, agents)
    api = Api(settings, records, leadership, replication, Contents(settings, peers))
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
    if holdings and leadership:
        _start(holdings.watch)
        _start(holdings.follow)
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


def _show_life(status: Callable[[], str]) -> None:
    """Report to systemd that this process runs, and its status. Never ends.

    A request in a process that hangs ends only with it, so systemd's watchdog ends it.

    Source: the manual page sd_notify(3).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as watchdog:
        while True:
            watchdog.sendto(f"WATCHDOG=1\nSTATUS={status()}".encode(), os.environ["NOTIFY_SOCKET"])
            time.sleep(_SIGN_OF_LIFE)


def _start(work: Callable[[], None]) -> None:
    """Run never-ending work in a thread; if it ends by an error, so does the program, which systemd restarts."""

    name = getattr(work, "__qualname__", str(work))

    def run() -> None:
        try:
            work()
        finally:
            logger.exception("%s ended", name)
            os._exit(1)

    threading.Thread(target=run, name=name, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
