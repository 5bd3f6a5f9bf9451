"""What is announced stays as it is while a registrator can't know better: at its start, and beside other managers."""

import json
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import consul
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_strategies import Inspection, container, metadata, states

from swarmer.node.registrator import swarm_watch
from swarmer.node.registrator.command_line import parse
from swarmer.node.registrator.engine import DockerAway, Refused
from swarmer.node.registrator.services import SWARM_SERVICE_ID
from swarmer.node.registrator.shared_labels import PREFIX, LabelWatch
from swarmer.node.registrator.swarm_watch import Swarm, SwarmWatch
from swarmer.node.registrator.watcher import Registrator

#: How a docker engine shows that it manages no swarm.
INACTIVE = {"LocalNodeState": "inactive"}
NO_CONTROL = {"LocalNodeState": "active", "ControlAvailable": False}

#: What a docker engine does when it is asked for its services: list them, show that it can't know any, or fail.
Answer = list[Any] | dict[str, Any] | DockerAway


class Store:
    """Stands in for consul's key-value store. A read that would wait for a change ends the thread instead."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, int]] = {}
        self.index = 1
        self.refusals: list[Exception] = []

    def get(self, prefix: str, *, recurse: bool, index: str | None, wait: str) -> tuple[str, list[dict[str, Any]]]:
        assert recurse and wait
        if self.refusals:
            raise self.refusals.pop()
        if index is not None:
            raise SystemExit
        return str(self.index), [
            {"Key": key, "Value": value, "ModifyIndex": modified}
            for key, (value, modified) in self.entries.items()
            if key.startswith(prefix)
        ]

    def put(self, key: str, value: str, *, cas: int, **_: Any) -> bool:
        return self._is_at(key, cas) and self._write(key, value)

    def delete(self, key: str, *, cas: int, **_: Any) -> bool:
        return cas > 0 and self._is_at(key, cas) and bool(self.entries.pop(key))

    def share(self, service: str, tags: str) -> None:
        """What another manager does."""
        self._write(PREFIX + service, json.dumps({"SERVICE_TAGS": tags}))

    def shared(self) -> dict[str, str | None]:
        """Service ID to tags."""
        return {
            key.removeprefix(PREFIX): json.loads(value).get("SERVICE_TAGS") for key, (value, _) in self.entries.items()
        }

    def _is_at(self, key: str, index: int) -> bool:
        return self.entries.get(key, (b"", 0))[1] == index

    def _write(self, key: str, value: str) -> bool:
        self.index += 1
        self.entries[key] = (value.encode(), self.index)
        return True


class Agent:
    """Stands in for consul's agent: its services and checks. As there, a status outlives another registration."""

    def __init__(self) -> None:
        self.service = self.check = self
        self.held: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, dict[str, Any]] = {}

    def services(self) -> dict[str, dict[str, Any]]:
        return self.held

    def checks(self) -> dict[str, dict[str, Any]]:
        return self.statuses

    def register(self, name: str, *, service_id: str, check: Any, extra_checks: list[Any], **other: Any) -> None:
        shown = {"Address": other["address"], "Port": other["port"], "Tags": other["tags"], "Meta": other["meta"]}
        self.held[service_id] = {"ID": service_id, "Service": name, **shown}
        before, self.statuses = self.statuses, {k: v for k, v in self.statuses.items() if v["ServiceID"] != service_id}
        for one in [check, *extra_checks] if check else []:
            status = before.get(one["CheckID"], {}).get("Status") if "TTL" in one else None
            self.statuses[one["CheckID"]] = {
                "CheckID": one["CheckID"],
                "ServiceID": service_id,
                "Status": status or one.get("Status", "critical"),
            }

    def deregister(self, identity: str) -> None:
        del self.held[identity]
        self.statuses = {key: one for key, one in self.statuses.items() if one["ServiceID"] != identity}

    def ttl_pass(self, check: str) -> None:
        self.statuses[check]["Status"] = "passing"

    def ttl_warn(self, check: str) -> None:
        self.statuses[check]["Status"] = "warning"

    def ttl_fail(self, check: str) -> None:
        self.statuses[check]["Status"] = "critical"


@dataclass
class Docker:
    """Stands in for a docker engine with containers. Of its swarm it answers by a script, then ends who asks.

    Attributes:
        before: called whenever it is asked for the services of the swarm.
    """

    containers: list[Inspection] = field(default_factory=list)
    script: Iterator[Answer] = field(default_factory=lambda: iter(()))
    before: Callable[[], None] = lambda: None
    state: dict[str, Any] = field(default_factory=dict)

    def ask(self, method: str, *arguments: Any, **_: Any) -> Any:
        match method:
            case "containers":
                return [{"Id": one["Id"]} for one in self.containers]
            case "inspect_container":
                return next(deepcopy(one) for one in self.containers if one["Id"] == arguments[0])
            case "inspect_image":
                return {"Config": {}}
            case "info":
                return {"Swarm": self.state}
        assert method == "services"
        self.before()
        answer = next(self.script, None)
        if answer is None:
            raise SystemExit
        if isinstance(answer, DockerAway):
            raise answer
        if isinstance(answer, dict):
            self.state = answer
            raise Refused
        return answer


@dataclass
class Node:
    """A consul and containers that outlive registrators."""

    containers: list[Inspection] = field(default_factory=list)
    store: Store = field(default_factory=Store)
    agent: Agent = field(default_factory=Agent)

    @property
    def kv(self) -> Store:
        return self.store

    def registrator(self) -> Registrator:
        """One that has just been started, and that docker's events reach."""
        options = parse(["-hostname", "node", "-ip", "10.0.0.1", "consul://127.0.0.1"], {})
        made = Registrator(options, lambda: self)
        engine: Any = Docker(self.containers)
        made.inventory.engine = engine
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


def look(swarm: SwarmWatch, script: Iterator[Answer]) -> None:
    """Let a watch look at its swarm again and again, until the script has ended."""
    engine: Any = Docker(script=script, before=swarm.wake)
    swarm.engine = engine
    swarm.wake()
    with pytest.raises(SystemExit):
        swarm.run()


def turn(made: Registrator, *, later: float = 0) -> None:
    """One turn of the main loop, which takes what was reported until now."""
    made._todo.add(made.signals.take(0))
    made.turn(time.monotonic() + later)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


@pytest.fixture
def node() -> Node:
    return Node()


# -- labels that managers share ----------------------------------------------------------------------------

#: A service, and its new tags, or None at its end.
changes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from(["blue", "green"])), max_size=3)


@given(st.lists(st.tuples(changes, changes, st.sampled_from([0.0, 1.0, 100.0])), min_size=1, max_size=6))
def test_what_other_managers_share_while_docker_answers_is_neither_deleted_nor_undone(
    steps: list[tuple[list[tuple[str, str | None]], list[tuple[str, str | None]], float]],
) -> None:
    node, clock = Node(), Clock()
    made = node.registrator()
    truth: dict[str, str] = {}
    ended: set[str] = set()

    def change(changes: list[tuple[str, str | None]]) -> None:
        for identity, tags in changes:
            if tags is None:
                truth.pop(identity, None)
                ended.add(identity)
            elif identity not in ended:
                truth[identity] = tags
                node.store.share(identity, tags)
        read_labels(made.watch)

    def script() -> Iterator[Answer]:
        for before, meanwhile, seconds in steps:
            change(before)
            answer = [service(identity, tags) for identity, tags in truth.items()]
            change(meanwhile)
            yield answer
            assert node.store.shared().items() >= truth.items()
            clock.now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        look(made.swarm, script())


def test_a_manager_shares_what_docker_lists_and_what_changed(node: Node) -> None:
    made = node.registrator()
    for listed in ({"shop": "blue"}, {"shop": "green", "front": "red"}):
        read_labels(made.watch)
        look(made.swarm, iter([[service(identity, tags) for identity, tags in listed.items()]]))
        assert node.store.shared() == listed


def test_the_labels_of_a_service_are_deleted_a_while_after_its_end(node: Node, clock: Clock) -> None:
    node.store.share("shop", "blue")
    made = node.registrator()
    read_labels(made.watch)

    def script() -> Iterator[Answer]:
        for _ in range(60):
            yield []
            assert node.store.shared() == {"shop": "blue"}
            clock.now += 1
        yield []

    look(made.swarm, script())
    assert node.store.shared() == {}


@pytest.mark.parametrize(
    "interruption",
    [[service("shop", "blue")], DockerAway("no quorum"), INACTIVE, NO_CONTROL],
    ids=["listed", "no answer", "inactive", "no control"],
)
def test_a_service_that_was_not_missing_all_the_while_keeps_its_labels(
    node: Node, clock: Clock, interruption: Answer
) -> None:
    node.store.share("shop", "blue")
    made = node.registrator()
    read_labels(made.watch)

    def script() -> Iterator[Answer]:
        for answer in [[], interruption, [], []]:
            yield answer
            clock.now += 50

    look(made.swarm, script())
    # The last look was 50 s after the first one that lacked it again.
    assert node.store.shared() == {"shop": "blue"}


def test_a_service_that_lost_its_labels_loses_them_on_all_nodes_at_once(node: Node) -> None:
    node.store.share("shop", "blue")
    made = node.registrator()
    read_labels(made.watch)
    look(made.swarm, iter([[service("shop")]]))
    read_labels(made.watch)
    assert made.watch.labels == {"shop": {}}


# -- tasks of services whose labels aren't known -----------------------------------------------------------


def task(env: tuple[str, ...] = (), labels: dict[str, str] | None = None, **state: Any) -> Inspection:
    ports = {"80/tcp": [("0.0.0.0", 8090)], "443/tcp": [("0.0.0.0", 8091)]}
    labels = {**(labels or {}), SWARM_SERVICE_ID: "shop", "com.docker.swarm.service.name": "shop"}
    return container(name="shop.1.x", ports=ports, env=env, labels=labels, state={"Pid": 0, **state})


def plain(*env: str) -> Inspection:
    found = container(name="plain", ports={"80/tcp": [("0.0.0.0", 8092)]}, env=env, state={"Pid": 0})
    return {**found, "Id": "d" * 64, "Created": "2026-01-02T00:00:00Z"}


def share_and_announce(node: Node, labels: dict[str, str]) -> None:
    """What a registrator does that could read the labels of a service, and then ended."""
    node.store._write(f"{PREFIX}shop", json.dumps(labels))
    made = node.registrator()
    read_labels(made.watch)
    turn(made)
    turn(made)


#: Labels that often mean something, and that often undo what others mean.
telling = st.dictionaries(
    st.sampled_from([f"SERVICE_{name}" for name in ("NAME", "ID", "TAGS", "80_IGNORE", "CHECK_TCP", "CHECK_CMD")]),
    st.sampled_from(["site", "true", ""]),
)


@given(telling | metadata, telling | metadata, telling | metadata, states)
def test_a_task_stays_as_it_is_announced_until_the_labels_of_its_service_could_be_read(
    env: dict[str, str], own: dict[str, str], labels: dict[str, str], state: dict[str, Any]
) -> None:
    node = Node([task(tuple(f"{key}={value}" for key, value in env.items()), own, **state)])
    share_and_announce(node, labels)
    before = deepcopy((node.agent.held, node.agent.statuses))
    made = node.registrator()
    turn(made)
    assert (node.agent.held, node.agent.statuses) == before
    read_labels(made.watch)
    turn(made)
    assert (node.agent.held, node.agent.statuses) == before


def test_while_labels_are_not_read_tasks_wait_and_other_containers_do_not(node: Node) -> None:
    node.containers += [task(), plain()]
    made = node.registrator()
    turn(made)
    assert set(node.agent.held) == {"node:plain:80"}
    read_labels(made.watch)
    turn(made)
    assert set(node.agent.held) == {"node:plain:80", "node:shop.1.x:443", "node:shop.1.x:80"}


def test_while_labels_are_not_read_a_task_that_ends_is_taken_back_and_one_that_is_ill_is_reported(node: Node) -> None:
    node.containers.append(task(Health={"Status": "healthy"}))
    share_and_announce(node, {"SERVICE_NAME": "site"})
    made = node.registrator()
    turn(made)
    assert {one["Status"] for one in node.agent.statuses.values()} == {"passing"}
    node.containers[0]["State"]["Health"]["Status"] = "unhealthy"
    made = node.registrator()
    turn(made)
    assert {one["Status"] for one in node.agent.statuses.values()} == {"critical"}
    assert {one["Service"] for one in node.agent.held.values()} == {"site-80", "site-443"}
    node.containers[0]["State"]["Restarting"] = True
    made = node.registrator()
    turn(made)
    assert node.agent.held == {}


def test_while_labels_are_not_read_the_command_that_they_may_replace_is_not_run(node: Node) -> None:
    node.containers.append(task(labels={"SERVICE_CHECK_SCRIPT": "exit 2"}))
    share_and_announce(node, {"SERVICE_CHECK_SCRIPT": "exit 0"})
    for check in node.agent.statuses.values():
        check["Status"] = "passing"
    made = node.registrator()
    turn(made)
    made.commands.start()
    assert not made.signals.take(0.5)
    turn(made)
    assert {one["Status"] for one in node.agent.statuses.values()} == {"passing"}


def test_while_labels_are_not_read_no_container_takes_the_id_of_a_task(node: Node) -> None:
    node.containers.append(task())
    share_and_announce(node, {"SERVICE_80_ID": "chosen"})
    before = deepcopy(node.agent.held["chosen"])
    node.containers.append(plain("SERVICE_ID=chosen"))
    made = node.registrator()
    turn(made)
    assert node.agent.held["chosen"] == before


def test_a_manager_knows_labels_without_reading_them(node: Node) -> None:
    node.containers.append(task())
    made = node.registrator()
    look(made.swarm, iter([[service("shop", "blue")]]))
    turn(made)
    assert node.agent.held["node:shop.1.x:80"]["Tags"] == ["blue"]


@pytest.mark.parametrize(
    ("refusal", "announced"),
    [
        (consul.ACLPermissionDenied("Permission denied"), True),
        # As in the first moments of a cluster that was restarted.
        (consul.ACLPermissionDenied("ACL not found"), False),
        (consul.ConsulException("500 No cluster leader"), False),
    ],
)
def test_only_a_token_that_may_not_read_labels_does_without_them(
    node: Node, monkeypatch: pytest.MonkeyPatch, refusal: Exception, announced: bool
) -> None:
    def end(_: float) -> None:
        raise SystemExit

    monkeypatch.setattr(time, "sleep", end)
    node.containers.append(task())
    node.store.refusals.append(refusal)
    made = node.registrator()
    turn(made)
    assert not node.agent.held
    read_labels(made.watch)
    turn(made)
    assert bool(node.agent.held) is announced


# -- outcomes of commands that weren't run yet -------------------------------------------------------------


def run_commands(made: Registrator) -> None:
    made.commands.start()
    made._todo.add(made.signals.take(10))
    turn(made)
    made.commands.follow({})


@pytest.mark.parametrize("initial", [(), ("SERVICE_CHECK_INITIAL_STATUS=passing",)])
def test_the_outcome_of_a_command_is_reported_when_there_is_one(node: Node, initial: tuple[str, ...]) -> None:
    def statuses() -> set[str]:
        return {one["Status"] for one in node.agent.statuses.values()}

    node.containers.append(plain("SERVICE_CHECK_SCRIPT=exit 0", *initial))
    made = node.registrator()
    turn(made)
    assert statuses() == {"passing" if initial else "critical"}
    run_commands(made)
    assert statuses() == {"passing"}
    # Another registrator has not run the command at first.
    for known in ("passing", "warning", "critical"):
        for check in node.agent.statuses.values():
            check["Status"] = known
        made = node.registrator()
        turn(made)
        turn(made, later=3600)
        assert statuses() == {known}
    run_commands(made)
    assert statuses() == {"passing"}


# -- whether this node is a manager ------------------------------------------------------------------------


@pytest.mark.parametrize("denial", [INACTIVE, NO_CONTROL], ids=["inactive", "no control"])
def test_ports_of_the_mesh_stay_when_docker_does_not_know_its_swarm_for_a_moment(
    node: Node, clock: Clock, denial: dict[str, Any]
) -> None:
    made = node.registrator()
    read_labels(made.watch)

    answers: list[Answer] = [
        [service("shop")],
        denial,
        denial,
        DockerAway("starting"),
        denial,
        denial,
        [service("shop")],
    ]

    def script() -> Iterator[Answer]:
        for answer in answers:
            yield answer
            turn(made)
            assert set(node.agent.held) == {"node:shop@mesh:8080"}
            clock.now += 2
        for _ in range(3):
            yield denial
            clock.now += 2

    look(made.swarm, script())
    turn(made)
    assert node.agent.held == {}


@given(st.lists(st.tuples(st.sampled_from(["manager", "denial", "no answer"]), st.floats(0, 5)), max_size=12))
def test_that_a_node_manages_nothing_is_believed_when_every_look_of_some_seconds_shows_it(
    steps: list[tuple[str, float]],
) -> None:
    clock = Clock()
    answers: dict[str, Answer] = {"manager": [service("shop")], "denial": INACTIVE, "no answer": DockerAway("starting")}
    made = Node().registrator()

    def script() -> Iterator[Answer]:
        expected, since = Swarm(), None
        for kind, seconds in steps:
            yield deepcopy(answers[kind])
            if kind != "denial":
                since = None
            elif since is None:
                since = clock.now
            if kind == "manager":
                expected = Swarm(is_manager=True, services=(service("shop"),))
            elif since is not None and clock.now - since >= swarm_watch.SURE:
                expected = Swarm(services=())
            assert made.swarm.swarm == expected
            clock.now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        look(made.swarm, script())


def test_a_node_that_seems_to_manage_nothing_any_more_looks_again_by_itself(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_watch, "POLL", 0.01)
    monkeypatch.setattr(swarm_watch, "SURE", 0.1, raising=False)
    made = node.registrator()
    read_labels(made.watch)
    looks: list[float] = []

    def script() -> Iterator[Answer]:
        # Without services it looks when it is woken, which is once here.
        yield []
        yield INACTIVE
        yield DockerAway("starting")
        while True:
            looks.append(time.monotonic())
            yield INACTIVE

    engine: Any = Docker(script=script())
    made.swarm.engine = engine
    made.swarm.start()
    until(lambda: made.swarm.swarm.is_manager)
    made.swarm.wake()
    until(lambda: not made.swarm.swarm.is_manager)
    assert looks and looks[-1] - looks[0] >= 0.05
    seen = len(looks)
    time.sleep(0.1)
    assert len(looks) == seen


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
