"""Who may change the registry: one node at a time, by a lock in consul.

The lock belongs to a session of consul, which ends when gossip declares the node dead, when the check of the registry
on that node becomes critical, as when this program hangs, or when it isn't renewed. `Lease` decides when the holder has
to stop by itself; the transactions of `Records` fail when the session no longer holds the lock.

The holder proves by consistent reads that it leads, each of which costs consul's leader a round of heartbeats. The
other nodes only have to know whom to ask, and that this node isn't cut off: the state of any server that knows a leader
(`?stale`) says that, costs little, and comes at once when a leader is lost.

After a restart this program continues with the session that it finds under its node's name: no other program uses it.

Sources: the HTTP API of consul, `session` and `kv`; its page on sessions.
"""

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from swarmer.node.consul_agent import Agent, Answer, Refused, Watch, own_token
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.health import CHECK
from swarmer.node.registry.lease import LOCK_DELAY, Lease
from swarmer.node.registry.records import LOCK
from swarmer.node.registry.settings import Settings
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

#: Seconds between two proofs of the leadership, and until one is given up. Three of them fit into a lease.
PROOF_INTERVAL: Final = scaled(0.3)
_PROOF_TIMEOUT: Final = 1.0

#: Seconds between two looks of a node that doesn't lead, unless it learns sooner that the lock is free.
_FOLLOW_INTERVAL: Final = scaled(1.0)

#: The shortest TTL that consul accepts. Gossip and the check end most sessions sooner.
_TTL: Final = scaled(10)
_RENEW_INTERVAL: Final = scaled(3.0)

#: Seconds between two tries for a free lock: consul doesn't report the end of a lock-delay.
_RETRY: Final = scaled(0.2)

#: Seconds for which the node of consul's leader leaves a free lock to others, so that one loss takes one leader, not
#: both: the lock-delay, and a few tries.
_COURTESY: Final = LOCK_DELAY + 3 * _RETRY

#: Seconds without an answer of consul after which waiting for a leader is useless: this node is cut off.
_CUT_OFF: Final = scaled(4.0)

#: Seconds for which a holder may be unfit before it releases the lock.
_UNFIT: Final = scaled(3.0)


class Leadership:
    """Tries to lead while this node is fit for it, and knows who leads.

    Args:
        agents: their `contact` is updated whenever consul answers what only a quorum can.
        fit: whether this node has all acknowledged content, and can serve it.
        ended: called when the leadership of any node has ended; must not block.
    """

    def __init__(
        self, settings: Settings, agents: Agents, fit: Callable[[], bool], ended: Callable[[], None] = lambda: None
    ) -> None:
        self.lease = Lease()
        self._settings = settings
        self._agents = agents
        self._fit = fit
        self._ended = ended
        self._proof = Agent(own_token("registry"), timeout=_PROOF_TIMEOUT)
        self._watch = Agent(own_token("registry"), timeout=20)
        self._session = ""
        #: Whether consul said last that our session holds the lock: then the next answer has to be a proof.
        self._holds = False
        self._renewed = 0.0
        self._fit_at = 0.0
        self._free_at: float | None = None
        self._seen: str | None = None
        self._seen_session = ""
        self._known = threading.Condition()
        self._freed = threading.Event()

    # -- who leads -----------------------------------------------------------------------------------------

    def leads(self) -> bool:
        """Whether this node may change the registry right now."""
        return self.lease.session() is not None and self._fit()

    def leader(self, *, timeout: float = 0) -> str | None:
        """The name of the node that leads; None when none is known after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            if self.leads():
                return self._settings.name
            with self._known:
                # That this node leads is known only while it is proven.
                if self._seen and self._seen != self._settings.name:
                    return self._seen
                now = time.monotonic()
                left = deadline - now
                if left <= 0 or now - self._agents.contact > _CUT_OFF:
                    return None
                self._known.wait(min(left, PROOF_INTERVAL))

    def watch(self) -> None:
        """Learn who holds the lock, by blocking queries. Never returns."""
        lock = Watch(self._watch, f"kv/{LOCK}?stale", wait=10)
        while True:
            try:
                answer = lock.next()
            except Refused:
                time.sleep(_RETRY)
                continue
            if answer.knows_leader:
                self._learn_from(answer)
            else:
                lock.restart()
                time.sleep(_RETRY)

    def _learn_from(self, answer: Answer) -> None:
        """Learn from an answer of consul that names the holder, or says that there is none."""
        session = session_of(answer)
        with self._known:
            former, self._seen_session = self._seen_session, session
        self._learn(holder_of(answer))
        if former and session != former:
            self._ended()

    def _learn(self, holder: str | None) -> None:
        with self._known:
            if holder != self._seen:
                logger.info("the leader of the registry is %s", holder or "unknown")
                if holder is None:
                    self._freed.set()
            self._seen = holder
            self._known.notify_all()

    # -- leading -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Try to lead, and prove the leadership. Never returns."""
        while True:
            try:
                pause = self._step()
            except Refused as refused:
                logger.debug("%s", refused)
                pause = _RETRY
                if time.monotonic() - self._agents.contact > LOCK_DELAY:
                    # The leader can't prove its leadership any more either, if consul has no leader.
                    self._learn(None)
            self._freed.wait(pause)
            self._freed.clear()

    def resign(self) -> None:
        """Release the lock without a lock-delay, at a shutdown."""
        self.lease.end()
        if self._session:
            agent = Agent(own_token("registry"), timeout=_PROOF_TIMEOUT)
            agent.ask("PUT", f"kv/{LOCK}?release={self._session}", self._value())
            agent.ask("PUT", f"session/destroy/{self._session}")

    def _step(self) -> float:
        """Look once; the seconds until the next look."""
        asked = self.lease.now()
        proving = self._holds
        answer = self._proof.ask("GET", f"kv/{LOCK}?{'consistent' if proving else 'stale'}")
        if answer.status not in (200, 404):
            raise Refused(f"{answer.status} {answer.text.decode(errors='replace')}")
        if not answer.knows_leader:
            raise Refused("consul has no leader")
        self._agents.contact = time.monotonic()
        self._learn_from(answer)
        session = session_of(answer)
        if session:
            self._free_at = None
        self._holds = bool(session) and session == self._session
        if self._holds:
            return self._hold(session, asked) if proving else 0
        self.lease.end()
        if session and holder_of(answer) == self._settings.name:
            logger.info("continuing with the session %s", session)
            self._session, self._renewed, self._fit_at, self._holds = session, 0, asked, True
            return 0
        return _FOLLOW_INTERVAL if session else self._try(asked)

    def _hold(self, session: str, asked: float) -> float:
        if self._fit():
            self._fit_at = asked
        elif asked - self._fit_at > _UNFIT and len(self._settings.nodes) > 1:
            logger.warning("this node is not fit to lead, and releases the lock")
            self.lease.end()
            self._proof.ask("PUT", f"kv/{LOCK}?release={session}", self._value())
            return PROOF_INTERVAL
        self.lease.prove(session, asked)
        if asked - self._renewed > _RENEW_INTERVAL:
            if self._proof.ask("PUT", f"session/renew/{session}").status != 200:
                self._session = ""
            self._renewed = asked
        return PROOF_INTERVAL

    def _try(self, asked: float) -> float:
        """Take the free lock, if this node is fit."""
        # Not `asked`: consul may hold back its answer until it has elected a leader.
        now = self.lease.now()
        if self._free_at is None:
            self._free_at = now
        if not self._fit() or (now - self._free_at < _COURTESY and self._leads_consul()):
            return _RETRY
        if not self._session or self._proof.ask("PUT", f"session/renew/{self._session}").status != 200:
            self._session = self._new_session()
            self._renewed = asked
        taken = self._proof.call("PUT", f"kv/{LOCK}?acquire={self._session}", self._value())
        if taken:
            logger.info("this node leads")
            self._fit_at = asked
            self._holds = True
            return 0
        return _RETRY

    def _leads_consul(self) -> bool:
        """Whether consul's leader is on this node, and there are others that could lead the registry."""
        leader = str(self._proof.call("GET", "status/leader"))
        return bool(self._settings.peers) and leader.startswith(f"{self._settings.ip}:")

    def _new_session(self) -> str:
        definition = {
            "Name": "registry",
            "LockDelay": f"{LOCK_DELAY * 1000:.0f}ms",
            "TTL": f"{_TTL:.0f}s",
            "Behavior": "release",
            "NodeChecks": ["serfHealth"],
            "ServiceChecks": [{"ID": CHECK}],
        }
        return str(self._proof.call("PUT", "session/create", definition)["ID"])

    def _value(self) -> bytes:
        return json.dumps({"name": self._settings.name}).encode()


def session_of(answer: Answer) -> str:
    """The session that holds the lock, in consul's answer on it; empty when none does."""
    return str(answer.json()[0].get("Session", "")) if answer.status == 200 else ""


def holder_of(answer: Answer) -> str | None:
    """The name of the node that holds the lock, in consul's answer on it."""
    if not session_of(answer):
        return None
    return str(json.loads(base64.b64decode(answer.json()[0]["Value"]))["name"])
