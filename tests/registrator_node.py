"""A node for the registrator's tests: stands in for its consul, its docker engine and the clock."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pytest
from registrator_strategies import Inspection, container

from swarmer.node.consul_agent import Answer, Refused, Watch
from swarmer.node.docker_engine import EngineError, EngineRefused
from swarmer.node.registrator.command_line import parse
from swarmer.node.registrator.services import SWARM_SERVICE_ID
from swarmer.node.registrator.shared_labels import PREFIX, LabelWatch
from swarmer.node.registrator.swarm_watch import SwarmWatch
from swarmer.node.registrator.watcher import Registrator

#: How a docker engine shows that it manages no swarm.
INACTIVE = "inactive"
WORKER = "active/worker"

#: What a docker engine does when it is asked for its services: list them, show that it can't know any, or fail.
Listing = list[Any] | str | EngineError


class Consul:
    """Stands in for consul and its agent: what a registrator asks of them, over any number of connections.

    A question that would wait for a change ends the thread instead. As in consul, the status of a check outlives
    another registration.

    Attributes:
        keys: key to value and `ModifyIndex`.
        refusals: errors that reads of the store raise first.
        services, checks: as the agent shows them.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.index = 1
        self.refusals: list[Refused] = []
        self.services: dict[str, dict[str, Any]] = {}
        self.checks: dict[str, dict[str, Any]] = {}

    # -- as an agent ---------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, **_: Any) -> Answer:
        key, query = path.removeprefix("kv/").split("?")
        assert path.startswith("kv/")
        if method == "GET":
            return self._read(key, query)
        index = int(query.removeprefix("cas="))
        done = self._is_at(key, index) and (self._write(key, body) if method == "PUT" else self._delete(key, index))
        return Answer(200, {}, json.dumps(done).encode())

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        match path.removeprefix("agent/").partition("?")[0].split("/"):
            case ["services"]:
                return self.services
            case ["checks"]:
                return self.checks
            case ["service", "register"]:
                self._register(body)
            case ["service", "deregister", identity]:
                self._deregister(unquote(identity))
            case ["check", report, check]:
                statuses = {"pass": "passing", "warn": "warning", "fail": "critical"}
                self.checks[unquote(check)]["Status"] = statuses[report]
            case _:
                return self.ask(method, path, body).json()
        return None

    def watch(self, path: str, **_: Any) -> Watch:
        agent: Any = self
        return Watch(agent, path, wait=60, first="")

    # -- what tests ask ------------------------------------------------------------------------------------

    def share(self, service: str, tags: str) -> None:
        """What another manager does."""
        self.share_labels(service, {"SERVICE_TAGS": tags})

    def share_labels(self, service: str, labels: dict[str, str]) -> None:
        self._write(PREFIX + service, json.dumps(labels).encode())

    def shared(self) -> dict[str, str | None]:
        """Service ID to tags."""
        return {
            key.removeprefix(PREFIX): json.loads(value).get("SERVICE_TAGS") for key, (value, _) in self.keys.items()
        }

    def statuses(self) -> set[str]:
        return {check["Status"] for check in self.checks.values()}

    def _read(self, prefix: str, query: str) -> Answer:
        if self.refusals:
            raise self.refusals.pop()
        if "index" in query:
            raise SystemExit
        assert query == "recurse&"
        found = [
            {"Key": key, "Value": b64encode(value).decode(), "ModifyIndex": modified}
            for key, (value, modified) in self.keys.items()
            if key.startswith(prefix)
        ]
        return Answer(200 if found else 404, {"X-Consul-Index": str(self.index)}, json.dumps(found).encode())

    def _is_at(self, key: str, index: int) -> bool:
        return self.keys.get(key, (b"", 0))[1] == index

    def _write(self, key: str, value: bytes) -> bool:
        self.index += 1
        self.keys[key] = (value, self.index)
        return True

    def _delete(self, key: str, index: int) -> bool:
        return index > 0 and bool(self.keys.pop(key))

    def _register(self, definition: dict[str, Any]) -> None:
        identity = definition["ID"]
        shown = {key: definition[key] for key in ("ID", "Address", "Port", "Tags", "Meta")}
        self.services[identity] = {"Service": definition["Name"], **shown}
        before, self.checks = self.checks, {k: v for k, v in self.checks.items() if v["ServiceID"] != identity}
        for one in definition["Checks"]:
            status = before.get(one["CheckID"], {}).get("Status") if "TTL" in one else None
            self.checks[one["CheckID"]] = {
                "CheckID": one["CheckID"],
                "ServiceID": identity,
                "Status": status or one.get("Status", "critical"),
            }

    def _deregister(self, identity: str) -> None:
        del self.services[identity]
        self.checks = {key: one for key, one in self.checks.items() if one["ServiceID"] != identity}


@dataclass
class Docker:
    """Stands in for a docker engine with containers. Of its swarm it answers by a script, then ends who asks.

    Attributes:
        before: called whenever it is asked for the services of the swarm.
    """

    running: list[Inspection] = field(default_factory=list)
    script: Iterator[Listing] = field(default_factory=lambda: iter(()))
    before: Callable[[], None] = lambda: None
    state: str = ""

    def containers(self, *, ended: bool) -> list[Inspection]:
        assert not ended
        return [{"Id": one["Id"]} for one in self.running]

    def container(self, identity: str) -> Inspection:
        return next(deepcopy(one) for one in self.running if one["Id"] == identity)

    def image(self, _: str) -> Inspection:
        return {"Config": {}}

    def swarm_state(self) -> str:
        return self.state

    def services(self) -> list[Any]:
        self.before()
        answer = next(self.script, None)
        if answer is None:
            raise SystemExit
        if isinstance(answer, EngineError):
            raise answer
        if isinstance(answer, str):
            self.state = answer
            raise EngineRefused
        return answer


@dataclass
class Node:
    """A consul and containers that outlive registrators."""

    containers: list[Inspection] = field(default_factory=list)
    consul: Consul = field(default_factory=Consul)

    def registrator(self) -> Registrator:
        """One that has just been started, and that docker's events reach."""
        options = parse(["-hostname", "node", "-ip", "10.0.0.1", "consul://127.0.0.1"], {})
        agent: Any = self.consul
        made = Registrator(options, lambda: agent)
        engine: Any = Docker(self.containers)
        made.inventory.engine = engine
        # The sockets of this machine say nothing of the node's.
        made.swarm.listening = None
        made.events.connected.set()
        return made


@dataclass
class Clock:
    """The monotonic clock, which only moves when it is made to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def service(identity: str, tags: str = "") -> dict[str, Any]:
    """A swarm service with a port of the routing mesh."""
    return {
        "ID": identity,
        "Spec": {"Name": identity, "Labels": {"SERVICE_TAGS": tags} if tags else {}},
        "Endpoint": {"Ports": [{"PublishedPort": 8080, "TargetPort": 80, "Protocol": "tcp"}]},
        "ServiceStatus": {"RunningTasks": 1},
    }


def read_labels(watch: LabelWatch) -> None:
    """Let a watch ask consul once."""
    with pytest.raises(SystemExit):
        watch.run()


def look(swarm: SwarmWatch, script: Iterator[Listing]) -> None:
    """Let a watch look at its swarm again and again, until the script has ended."""
    engine: Any = Docker(script=script, before=swarm.wake)
    swarm.engine = engine
    swarm.wake()
    with pytest.raises(SystemExit):
        swarm.run()


def turn(made: Registrator, *, later: float = 0) -> None:
    """One turn of the main loop, which takes what was reported until now."""
    made._todo.add(made.wakeups.take(0))
    made.turn(time.monotonic() + later)


def task(env: tuple[str, ...] = (), labels: dict[str, str] | None = None, **state: Any) -> Inspection:
    ports = {"80/tcp": [("0.0.0.0", 8090)], "443/tcp": [("0.0.0.0", 8091)]}
    labels = {**(labels or {}), SWARM_SERVICE_ID: "shop", "com.docker.swarm.service.name": "shop"}
    return container(name="shop.1.x", ports=ports, env=env, labels=labels, state={"Pid": 0, **state})


def plain(*env: str) -> Inspection:
    found = container(name="plain", ports={"80/tcp": [("0.0.0.0", 8092)]}, env=env, state={"Pid": 0})
    return {**found, "Id": "d" * 64, "Created": "2026-01-02T00:00:00Z"}
