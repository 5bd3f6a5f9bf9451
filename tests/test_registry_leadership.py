"""The registry's leader: only a consistent answer of consul proves it, however old the others are."""

import contextlib
import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmer.node.consul_agent import Answer, Refused
from swarmer.node.registry import leadership
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.leadership import Leadership
from swarmer.node.registry.lease import LEASE
from swarmer.node.registry.records import LOCK
from swarmer.node.registry.settings import Settings

SETTINGS = Settings(
    "one", {"one": "10.0.0.1", "two": "10.0.0.2"}, "dev.nspawn", "filesystem", "nspawn:dev", "swarmer", "", "secret"
)


class Consul:
    """The lock, and every holder that it ever had: what isn't asked consistently is answered from any of them."""

    def __init__(self) -> None:
        self.holders: list[str | None] = [None]
        self.lag = 0
        self.has_leader = True
        self.sessions = 0
        self.now = 0.0
        #: When each holder last held the lock for certain.
        self.held: dict[str, float] = {}

    def take(self, session: str | None) -> None:
        if self.holders[-1]:
            self.held[self.holders[-1]] = self.now
        self.holders.append(session)

    def ask(self, method: str, path: str, _body: object = None, **_: Any) -> Answer:
        known = {"X-Consul-Knownleader": json.dumps(self.has_leader)}
        if path.startswith("session/renew/"):
            return Answer(200, known, b"[]")
        assert (method, path.split("?")[0]) == ("GET", f"kv/{LOCK}")
        if path.endswith("?stale"):
            holder = self.holders[max(0, len(self.holders) - 1 - self.lag)]
        elif not self.has_leader:
            return Answer(500, {}, b"No cluster leader")
        else:
            holder = self.holders[-1]
        name = "one" if holder and holder.startswith("one") else "two"
        value = b64encode(json.dumps({"name": name}).encode()).decode()
        entry = {"Value": value, **({"Session": holder} if holder else {})}
        return Answer(200, known, json.dumps([entry]).encode())

    def call(self, _method: str, path: str, _body: object = None) -> Any:
        if not self.has_leader:
            raise Refused("no cluster leader")
        if path == "status/leader":
            return "10.0.0.2:8300"
        if path == "session/create":
            self.sessions += 1
            return {"ID": f"one-{self.sessions}"}
        session = path.partition("?acquire=")[2]
        if self.holders[-1] is None:
            self.take(session)
        return self.holders[-1] == session


#: A number is a pause in seconds, or how many changes the server is behind.
STEPS = st.lists(
    st.sampled_from(["look", "look", "another takes it", "it is freed", "no leader", "leader", 0, 1, 2, 0.3, 1.3]),
    max_size=40,
)


@settings(max_examples=500)
@given(steps=STEPS)
def test_no_answer_that_may_be_old_proves_the_leadership(steps: list[str | int | float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        consul = Consul()
        patch.setattr(leadership, "Agent", lambda *_, **__: consul)
        patch.setattr(leadership, "own_token", lambda _: "")
        one = Leadership(SETTINGS, Agents(), lambda: True)
        patch.setattr(one.lease, "_clock", lambda: consul.now)
        for step in steps:
            match step:
                case "look":
                    with contextlib.suppress(Refused):
                        one._step()
                case "another takes it":
                    consul.take("two-1")
                case "it is freed":
                    consul.take(None)
                case "no leader" | "leader":
                    consul.has_leader = step == "leader"
                case int():
                    consul.lag = step
                case float():
                    consul.now += step
            session = one.lease.session()
            if session and consul.holders[-1] != session:
                assert consul.now - consul.held[session] < LEASE


def test_a_free_lock_is_taken_and_proven() -> None:
    with pytest.MonkeyPatch.context() as patch:
        consul = Consul()
        patch.setattr(leadership, "Agent", lambda *_, **__: consul)
        patch.setattr(leadership, "own_token", lambda _: "")
        one = Leadership(SETTINGS, Agents(), lambda: True)
        one._step()
        assert not one.leads()
        one._step()
        assert one.leads()
