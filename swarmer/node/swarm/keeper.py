"""The work of the swarm's leader: labels, roles, superfluous entries, and the records in consul."""

import time
from collections.abc import Sequence

from swarmer.node.docker_engine import EngineError
from swarmer.node.swarm import reconcile
from swarmer.node.swarm.engine import Engine, SwarmNode
from swarmer.node.swarm.reconcile import Plan, Promote, Reconciler, Remove, Update
from swarmer.node.swarm.records import Records, Store


class Keeper:
    """One term of a leader. It ends with the first look at which the node doesn't lead."""

    def __init__(self, engine: Engine, store: Store, plan: Plan) -> None:
        self._engine = engine
        self._store = store
        self._reconciler = Reconciler(plan)
        self._refusals: set[str] = set()

    def apply(self, records: Records, nodes: Sequence[SwarmNode], *, calm: float) -> float:
        """Take the actions that are due, and update the records.

        Returns:
            Seconds until the next look, at most `calm`.

        Raises:
            Refused: consul isn't ready.
            EngineError: docker isn't.
        """
        now = time.monotonic()
        for action in self._reconciler.look(nodes, records, now):
            try:
                self._do(action)
            except EngineError as error:  # such as when the entry was changed meanwhile
                self._report_once(f"{_label(action.node)}: not yet possible: {error}")
                calm = min(calm, 0.3)
        for name in reconcile.without_state(nodes, records):
            self._store.forget_manager(name)
        tokens = {role.lower(): token for role, token in self._engine.swarm()["JoinTokens"].items()}
        if tokens != records.tokens:
            self._store.record_tokens(tokens)
        present = reconcile.members(nodes, records.nodes)
        if present != records.members:
            self._store.record_members(records.members, present)
        return self._reconciler.pause(now, calm=calm)

    def _do(self, action: reconcile.Action) -> None:
        match action:
            case Promote(node, name):
                self._engine.change(node, Role=reconcile.MANAGER)
                print(f"{name} was a worker of the swarm: promoted to manager again", flush=True)
            case Update(node, changes, reason):
                self._engine.change(node, **changes)
                if reason:
                    print(f"{_label(node)} {reason}: demoted", flush=True)
            case Remove(node, reason):
                self._engine.remove(node)
                print(f"{_label(node)} {reason}: removed", flush=True)

    def _report_once(self, refusal: str) -> None:
        if refusal not in self._refusals:
            self._refusals.add(refusal)
            print(refusal, flush=True)


def _label(node: SwarmNode) -> str:
    return f"{reconcile.name(node) or 'an unnamed entry'} ({node['ID']})"
