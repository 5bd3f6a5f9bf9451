"""How this node joins the swarm and stays in it: one step at a time, from any state."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from swarmer.node.consul_agent import Refused
from swarmer.node.docker_engine import EngineError
from swarmer.node.slowness import scaled
from swarmer.node.swarm import reconcile
from swarmer.node.swarm.engine import Engine, Membership
from swarmer.node.swarm.keeper import Keeper
from swarmer.node.swarm.records import Identity, Records, Store

#: Seconds between two heartbeats of a node to the managers; after three missing ones its tasks are started elsewhere.
#: With docker's default of 5, that takes 15 to 20 s.
HEARTBEAT: Final = scaled(2.0)

#: The longest wait of a blocking query in seconds: not every change ends it.
PATIENCE: Final = scaled(2.0)

#: Seconds between two looks of a manager without events, and of a worker.
CALM: Final = scaled(2.0)

#: Seconds that docker gets to recover by itself.
GIVE_UP: Final = scaled(15.0)

#: The same for a node that counts as down: docker may wait twice for 8 s before it tries again.
GIVE_UP_DOWN: Final = scaled(30.0)

#: Docker never recovers from it: a leader without a quorum lets a returning node register, then misses the heartbeats
#: of the node's former session, and once there is a quorum again writes both states, the latter last.
DOWN: Final = "the managers count this node as down, though it is up"

#: Seconds without a leader until the last holder of the swarm's state continues alone; longer than an election.
LAST_ONE: Final = scaled(30.0)


@dataclass
class Member:
    """This node, as a member of the swarm.

    Attributes:
        facts: the content of `node.json`.
        known: the content of `swarm.json`, on managers: `overlay_pool`, and all `nodes` of the spec.
    """

    facts: Mapping[str, Any]
    known: Mapping[str, Any]
    engine: Engine
    store: Store
    _managing: Membership | None = field(default=None, init=False)
    _keeper: Keeper | None = field(default=None, init=False)
    _trouble_since: float | None = field(default=None, init=False)
    _alone_since: float | None = field(default=None, init=False)

    @property
    def manages(self) -> bool:
        """Whether the node is a manager in the spec."""
        return bool(self.facts["swarm"] != "agent")

    @property
    def availability(self) -> str:
        """The availability with which the node joins, in docker's words."""
        return "drain" if self.facts["swarm"] == "manager" else "active"

    def step(self) -> float:
        """Check the state of the node, and take the next step; seconds until the next look.

        Raises:
            Refused: consul isn't ready, or another node was faster.
            EngineError: docker isn't ready, or refuses.
        """
        keeper, self._keeper = self._keeper, None  # kept only while this node leads
        membership = self._managing or self._membership()
        if membership.state == "inactive":
            self._enter_as_manager() if self.manages else self._enter_as_worker()
            return 0
        if membership.state == "active" and membership.manager:
            return self._manage(membership, keeper)
        if self.manages:
            self.store.announce_trouble(membership.error or f"{membership.state}, but not a manager")
        if membership.state == "locked":
            return 1.0  # it has to be unlocked by hand
        # The other states are pending, in which docker is busy, and error, in which it retries by itself.
        if self.manages:
            self._continue_alone()
        if self._gave_up(trouble := self._trouble(membership)):
            return self._leave(trouble)
        if membership.state != "active":
            return 0.2
        return 1.0 if self._trouble_since else CALM

    def _membership(self) -> Membership:
        try:
            return self.engine.membership()
        except EngineError as error:
            self.store.announce_trouble(str(error))
            raise

    # -- joining -------------------------------------------------------------------------------------------

    def _enter_as_worker(self) -> None:
        token, index = self.store.worker_token()
        if not token:
            token, _ = self.store.worker_token(index=index, wait=PATIENCE)
        if token:
            self._join(token)

    def _enter_as_manager(self) -> None:
        records = self.store.records()
        name = self.facts["name"]
        self._trouble_since = None
        if name in records.managers:
            self.store.forget_manager()  # the disk of the node is new, without the state
        if records.cluster and set(records.managers) - {name}:
            self._join(records.tokens["manager"])
            return
        try:
            self._found()
        except Refused:
            self.store.records(index=records.index, wait=PATIENCE)

    def _join(self, token: str) -> None:
        managers, index = self.store.managers()
        if not managers:
            managers, _ = self.store.managers(index=index, wait=PATIENCE)
        if managers:
            print(f"joining the swarm of {', '.join(managers)}", flush=True)
            self.engine.join(self.facts["ip"], availability=self.availability, token=token, managers=managers)

    def _found(self) -> None:
        """Found the swarm, unless another manager has founded it or is about to."""
        with self.store.lock() as session:
            records = self.store.records()
            if set(records.managers) - {self.facts["name"]}:
                return
            if self.store.managers()[0]:
                raise Refused("there are managers of a swarm that isn't published yet")
            print("founding the swarm", flush=True)
            with ThreadPoolExecutor(1) as pool:
                # Docker is done once the founder itself can run tasks; others can join half a second earlier.
                founding = pool.submit(self._init)
                swarm = self._wait_for_swarm(founding)
                self.store.announce(leader=True)
                node = self.engine.membership().node
                self.store.publish(swarm, node, replacing=records.version, session=session)
                founding.result()

    def _init(self) -> None:
        pool = self.known["overlay_pool"]
        self.engine.init(self.facts["ip"], availability=self.availability, pool=pool, heartbeat=HEARTBEAT)

    def _wait_for_swarm(self, founding: Future[None]) -> Mapping[str, Any]:
        """The swarm that is being founded, as soon as it exists."""
        while True:
            done = founding.done()
            if done:
                founding.result()
            try:
                return self.engine.swarm()
            except EngineError:
                if done:
                    raise
                time.sleep(0.02)

    # -- membership -----------------------------------------------------------------------------------------

    def _manage(self, membership: Membership, keeper: Keeper | None) -> float:
        # Docker runs two programs whenever it is asked for the membership, so it is remembered while all is well.
        self._managing = None
        if not self._is_in_recorded_swarm(membership):
            return 1.0
        try:
            nodes = self.engine.nodes()
        except EngineError as error:
            self.store.announce_trouble(str(error))
            self._continue_alone()
            return 0.3
        self._alone_since = None
        own = next((node for node in nodes if node["ID"] == membership.node), None)
        if own and self._gave_up(DOWN if reconcile.is_down(own) else "") and reconcile.may_leave(own, nodes):
            return self._leave(DOWN)
        leader = bool(own and (own.get("ManagerStatus") or {}).get("Leader"))
        self.store.announce(leader=leader)
        pause = CALM
        if leader and membership.cluster:  # without the id of the swarm, nothing is decided
            self._keeper = keeper or Keeper(self.engine, self.store, self.known["nodes"])
            pause = self._keeper.apply(self.store.records(), nodes, calm=CALM)
        if own and membership.cluster:
            self._managing = membership
        return pause

    def _is_in_recorded_swarm(self, membership: Membership) -> bool:
        """Whether this is the recorded swarm; this node is recorded as one of its managers.

        A manager that died after founding a swarm, before publishing it, finds another one recorded when it returns.
        Without a leader, docker doesn't return the id of the swarm, and nothing is decided.
        """
        if not membership.cluster:
            return True
        records = self.store.records()
        if not records.cluster:
            with self.store.lock() as session:
                self.store.publish(self.engine.swarm(), membership.node, replacing=0, session=session)
        elif records.cluster != membership.cluster:
            return self._resolve_conflict(records, membership)
        elif self._recorded_ids(records) != (membership.node, membership.node):
            self.store.record_manager(membership.node)
        return True

    def _recorded_ids(self, records: Records) -> tuple[str, str | None]:
        """The ids under which this node, and it as a manager, is recorded."""
        name = self.facts["name"]
        return records.nodes.get(name, Identity()).node, records.managers.get(name)

    def _resolve_conflict(self, records: Records, membership: Membership) -> bool:
        """Resolve that another swarm is recorded than this one; whether this one is right after all.

        It is right if most managers of the cluster are in it: the record is old then, as of a restored snapshot.
        Otherwise this manager leaves it after a while.
        """
        if reconcile.is_swarm_of(self.engine.nodes(), self.known["nodes"]):
            with self.store.lock() as session:
                print(
                    f"the swarm {records.cluster} is recorded, but most managers are in {membership.cluster}",
                    flush=True,
                )
                version = records.version
                self.store.publish(self.engine.swarm(), membership.node, replacing=version, session=session)
            return True
        reason = f"this is the swarm {membership.cluster}, not {records.cluster}"
        self.store.announce_trouble(reason)
        if self._gave_up(reason):
            self._leave(reason)
        return False

    def _continue_alone(self) -> None:
        """Make this manager the only one, if no other node holds the swarm's state: the others' disks are new.

        Otherwise the swarm would wait forever for a quorum of managers that don't exist any more.
        """
        records = self.store.records()
        if not records.cluster or set(records.managers) != {self.facts["name"]}:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since >= LAST_ONE:
            print("continuing as the only manager: no other node holds the swarm's state", flush=True)
            self._alone_since = None
            self.engine.force_new_cluster(self.facts["ip"], availability=self.availability)

    def _trouble(self, membership: Membership) -> str:
        """Why this node seems to have lost its place in the swarm; empty if it hasn't.

        Docker doesn't inform a node that the managers have removed it, or that its swarm doesn't exist any more. The
        leader records the members; it may be a moment behind. Without a leader, nothing is known.

        A node that is still joining has lost nothing, whatever is recorded of its former self. Docker answers a join
        after 20 s at the latest and continues it in the background; leaving would only begin it again.
        """
        if membership.state == "pending" and not membership.node:
            return ""
        known = self.store.member()
        if known.node != membership.node and membership.state == "active":
            self.store.record_node(membership.node)  # the leader knows it by that
        if not self.store.has_leader():
            return ""
        if known.node != membership.node:
            return f"the managers have this node as {known.node or 'no member'}, not {membership.node}"
        if membership.state == "error":
            return membership.error
        return DOWN if known.down else ""

    def _gave_up(self, trouble: str) -> bool:
        """Whether docker hasn't recovered from a trouble in the time that it gets."""
        if not trouble:
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = time.monotonic()
        limit = GIVE_UP_DOWN if trouble == DOWN else GIVE_UP
        return self._trouble_since is not None and time.monotonic() - self._trouble_since >= limit

    def _leave(self, reason: str) -> float:
        """Leave, to join again, if there are other managers; seconds until the next look."""
        managers, _ = self.store.managers()
        if not managers:
            return CALM
        print(f"leaving the swarm, to join again: {reason}", flush=True)
        self._trouble_since = None
        if self.manages:
            self.store.withdraw()
            self.store.forget_manager()
        self.engine.leave()
        return 0
