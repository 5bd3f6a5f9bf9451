"""Connections to this node's consul agent, for any number of threads."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from swarmer.node.consul_agent import Agent, Answer, own_token

#: Connections that are kept open. Consul accepts 200 from all programs of a node, and closes none by itself.
_IDLE: Final = 16


class Agents:
    """Connections to the node's consul agent, for any number of threads."""

    def __init__(self, *, timeout: float = 3) -> None:
        self._timeout = timeout
        self._idle: queue.LifoQueue[Agent] = queue.LifoQueue(_IDLE)
        #: When consul last answered what only a quorum can; at first, when this began.
        self.contact = time.monotonic()

    @contextmanager
    def one(self) -> Iterator[Agent]:
        """A connection for the calling thread alone."""
        try:
            agent = self._idle.get_nowait()
        except queue.Empty:
            agent = Agent(own_token("registry"), timeout=self._timeout)
        try:
            yield agent
        finally:
            try:
                self._idle.put_nowait(agent)
            except queue.Full:
                agent.close()

    def ask(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> Answer:
        """As `Agent.ask`."""
        with self.one() as agent:
            return agent.ask(method, path, body, timeout=timeout)
