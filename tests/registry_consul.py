"""A consul in memory, for tests of what the registry records."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from swarmer.node.consul_agent import Answer, Refused
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.records import LOCK, Records


@dataclass
class Consul:
    """Consul's KV, as far as transactions need it: they may be held back, and be carried out after their answer is due.

    Attributes:
        slow: hold the next transaction back; who sent it gets no answer.
        lose_lock_after: the lock goes to another session after so many more transactions.
        most_bytes: of a request, as consul takes them.
        listed: whether more than single entries were read.
        asked: the number of questions.
        bytes: of the answers.
    """

    holder: str = "session"
    slow: bool = False
    lose_lock_after: int | None = None
    most_bytes: int = 512 << 10
    index: int = 1
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    held_back: list[list[dict[str, Any]]] = field(default_factory=list)
    listed: bool = False
    asked: int = 0
    bytes: int = 0

    def ask(self, method: str, path: str, body: Any = None, **_options: object) -> Answer:
        answer = self.answer(method, path, body)
        self.asked += 1
        self.bytes += len(answer.text)
        return answer

    def answer(self, method: str, path: str, body: Any) -> Answer:
        if method == "GET":
            key, _, options = unquote(path).removeprefix("kv/").partition("?")
            many = "recurse" in options
            if "keys" in options:
                names = [name for name in self.entries if name.startswith(key)]
                return Answer(200 if names else 404, {}, json.dumps(names).encode())
            self.listed |= many
            found = [entry for name, entry in self.entries.items() if name == key or (many and name.startswith(key))]
            return Answer(200 if found else 404, {}, json.dumps(found).encode() if found else b"")
        if path == "txn?consistent":
            wanted = [step["KV"]["Key"] for step in body]
            return Answer(200, {}, json.dumps({"Results": self.results(wanted)}).encode())
        assert path == "txn"
        if len(json.dumps(body)) > self.most_bytes:
            return Answer(413, {}, b"request body too large")
        if self.slow:
            self.held_back.append(body)
            raise Refused("timed out")
        if not self.carry_out(body):
            return Answer(409, {}, b"{}")
        return Answer(200, {}, json.dumps({"Results": self.results([step["KV"]["Key"] for step in body])}).encode())

    def results(self, keys: list[str]) -> list[dict[str, Any]]:
        return [{"KV": self.entries[key]} for key in keys if key in self.entries]

    def carry_out(self, steps: list[dict[str, Any]]) -> bool:
        """All of it or nothing."""
        if self.lose_lock_after is not None:
            self.lose_lock_after -= 1
            if self.lose_lock_after < 0:
                return False
        entries = dict(self.entries)
        for step in (each["KV"] for each in steps):
            key, verb = step["Key"], step["Verb"]
            index = entries[key]["ModifyIndex"] if key in entries else 0
            match verb:
                case "check-session":
                    assert key == LOCK
                    if step["Session"] != self.holder:
                        return False
                case "cas" | "set":
                    if verb == "cas" and step["Index"] != index:
                        return False
                    entries[key] = {"Key": key, "Value": step["Value"], "ModifyIndex": self.index + 1}
                case "delete":
                    entries.pop(key, None)
                case _:
                    raise NotImplementedError(verb)
        self.index += 1
        self.entries = entries
        return True


def records_of(consul: Consul, clock: Callable[[], float] = lambda: 0.0) -> Records:
    agents = Agents()
    setattr(agents, "ask", consul.ask)  # noqa: B010
    return Records(agents, clock)
