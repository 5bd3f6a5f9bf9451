"""The checks of services: the first kind that has a value, with the options that belong to it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_node import Node, plain, turn
from registrator_strategies import values

from swarmer.node.registrator.checks import (
    Check,
    CheckCommand,
    Status,
    Target,
    check_of_attributes,
    healthcheck,
    heartbeat,
    seconds,
)
from swarmer.node.registrator.commands import Commands
from swarmer.node.registrator.metadata import Attributes
from swarmer.node.registrator.services import Service
from swarmer.node.registrator.wakeups import Wakeups
from swarmer.node.registrator.watcher import Registrator

TARGET = Target("node:web:80", "10.0.0.1", 8080, 80, "c0ffee")
KINDS = ("http", "https", "cmd", "script", "ttl", "tcp", "grpc")


def check(**attributes: str) -> Check:
    return check_of(TARGET, **attributes)


def check_of(target: Target, **attributes: str) -> Check:
    (found,) = check_of_attributes(target, Attributes({f"check_{name}": value for name, value in attributes.items()}))
    return found


def definition(**attributes: str) -> dict[str, object]:
    found = dict(check(**attributes).definition)
    del found["Name"]
    return found


def test_http() -> None:
    assert definition(http="/ping") == {"HTTP": "http://10.0.0.1:8080/ping", "Interval": "10s"}
    assert definition(http="ping", http_method="head", timeout="2s", interval="3s") == {
        "HTTP": "http://10.0.0.1:8080/ping",
        "Method": "HEAD",
        "Timeout": "2s",
        "Interval": "3s",
    }


def test_https() -> None:
    wanted = {"HTTP": "https://10.0.0.1:8080/", "Interval": "10s"}
    assert definition(https="/") == wanted
    assert definition(https="/", tls_skip_verify="true") == {**wanted, "TLSSkipVerify": True}
    assert definition(https="/", tls_skip_verify="false", http_method="PUT") == wanted


def test_addresses_of_version_6_stand_in_brackets() -> None:
    target = Target("i", "fd00::1", 80, 80, None)
    assert check_of(target, http="/").definition["HTTP"] == "http://[fd00::1]:80/"
    assert check_of(target, tcp="true").definition["TCP"] == "[fd00::1]:80"


def test_a_command_is_run_once_a_day_at_least() -> None:
    command = check(cmd="true", interval="3000000h", timeout="3000000h").command
    assert command and (command.interval, command.timeout) == (86400, 86400)


def test_tcp_and_grpc() -> None:
    assert definition(tcp="true", timeout="1s") == {"TCP": "10.0.0.1:8080", "Interval": "10s", "Timeout": "1s"}
    assert definition(grpc="true") == {"GRPC": "10.0.0.1:8080", "Interval": "10s"}
    assert definition(grpc="true", grpc_use_tls="true", tls_skip_verify="1") == {
        "GRPC": "10.0.0.1:8080",
        "GRPCUseTLS": True,
        "TLSSkipVerify": True,
        "Interval": "10s",
    }


def test_a_ttl_is_reported_by_somebody_else() -> None:
    found = check(ttl="15s")
    assert (found.id, found.refresh, found.command) == ("service:node:web:80", None, None)
    assert definition(ttl="15s") == {"TTL": "15s"}


def test_a_command_runs_in_the_container_and_a_script_on_the_node() -> None:
    inside = check(cmd="test -e /ready", interval="2s", timeout="1s")
    assert inside.command == CheckCommand("test -e /ready", "c0ffee", 2, 1)
    here = check(script="curl $SERVICE_IP:$SERVICE_PORT")
    assert here.command == CheckCommand("curl 10.0.0.1:8080", "", 10, 30)
    for found in (inside, here):
        assert found.refresh
        assert found.command
        assert seconds(str(found.definition["TTL"])) > 2 * found.refresh > 2 * found.command.interval
        assert found.refresh > found.command.timeout / 2


def test_a_port_of_the_routing_mesh_has_no_container_for_a_command() -> None:
    target = Target("node:web@mesh:80", "10.0.0.1", 80, 80, None)
    assert check_of_attributes(target, Attributes({"check_cmd": "true"})) == ()
    assert check_of(target, cmd="true", tcp="true").definition["TCP"] == "10.0.0.1:80"


def test_the_initial_status_and_deregister_after() -> None:
    assert check(tcp="1", initial_status="Passing").status is Status.PASSING
    assert check(tcp="1", initial_status="splendid").status is None
    assert check(tcp="1", deregister_after="10m").definition["DeregisterCriticalServiceAfter"] == "10m"


def test_without_a_request_there_is_none() -> None:
    assert check_of_attributes(TARGET, Attributes({"check_interval": "5s", "check_http": " "})) == ()


@given(st.dictionaries(st.sampled_from(KINDS), values))
def test_the_first_kind_that_has_a_value_wins(attributes: dict[str, str]) -> None:
    found = check_of_attributes(TARGET, Attributes({f"check_{kind}": value for kind, value in attributes.items()}))
    first = next((kind for kind in KINDS if attributes.get(kind, "").strip()), None)
    if first is None:
        assert found == ()
        return
    (one,) = found
    text = one.definition
    kinds = {
        "http": str(text.get("HTTP")).startswith("http://"),
        "https": str(text.get("HTTP")).startswith("https://"),
        "cmd": bool(one.command and one.command.container),
        "script": bool(one.command and not one.command.container),
        "ttl": "TTL" in text and not one.command,
        "tcp": "TCP" in text,
        "grpc": "GRPC" in text,
    }
    assert [kind for kind, it_is in kinds.items() if it_is] == [first]


@pytest.mark.parametrize(
    ("health", "status"),
    [("healthy", Status.PASSING), ("unhealthy", Status.CRITICAL), ("starting", Status.CRITICAL)],
)
def test_the_containers_own_health_is_followed(health: str, status: Status) -> None:
    (found,) = healthcheck(TARGET, health)
    assert (found.id, found.status) == ("healthcheck:node:web:80", status)
    assert found.refresh
    assert seconds(str(found.definition["TTL"])) > 2 * found.refresh


def test_a_container_without_a_healthcheck_has_none() -> None:
    assert healthcheck(TARGET, None) == healthcheck(TARGET, "none") == ()


def test_heartbeats() -> None:
    assert heartbeat(TARGET, 0, 0) == ()
    (found,) = heartbeat(TARGET, 30, 10)
    assert (found.definition["TTL"], found.refresh, found.status) == ("30s", 10, Status.PASSING)


@pytest.mark.parametrize(
    ("text", "number"),
    [("10s", 10), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), ("", 0), ("10", 0), ("soon", 0), ("1m ", 0)],
)
def test_durations(text: str, number: float) -> None:
    assert seconds(text) == number


# -- scripts of this node, really run ----------------------------------------------------------------------


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def commands(wakeups: Wakeups) -> Iterator[Commands]:
    runner = Commands("unix:///nowhere", wakeups)
    runner.start()
    yield runner
    runner.follow({})


def service(command: CheckCommand) -> Service:
    return Service("i", "web", "10.0.0.1", 80, (), {}, (Check("c", {}, None, 1, command), Check("other", {})))


def script(text: str, *, interval: float = 60, timeout: float = 5) -> CheckCommand:
    return CheckCommand(text, "", interval, timeout)


@pytest.mark.parametrize(
    ("text", "status"),
    [("exit 0", Status.PASSING), ("exit 1", Status.WARNING), ("exit 2", Status.CRITICAL), ("kill $$", Status.CRITICAL)],
)
def test_the_exit_status_is_the_verdict(commands: Commands, wakeups: Wakeups, text: str, status: Status) -> None:
    command = script(text)
    assert commands.with_outcomes(service(command)).checks[0].status is None
    commands.follow({"c": command})
    assert wakeups.take(10)
    assert [check.status for check in commands.with_outcomes(service(command)).checks] == [status, None]


def test_a_script_that_hangs_is_ended_with_its_children(commands: Commands, wakeups: Wakeups, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    command = script(f"sleep 600 & echo $! > {pid}; wait", timeout=0.5)
    commands.follow({"c": command})
    assert wakeups.take(10)
    assert commands.with_outcomes(service(command)).checks[0].status is Status.CRITICAL
    child = Path("/proc") / pid.read_text().strip() / "stat"
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_script_that_never_stops_talking_is_ended_too(commands: Commands, wakeups: Wakeups) -> None:
    command = script("yes", timeout=0.3)
    commands.follow({"c": command})
    assert wakeups.take(10)
    assert commands.with_outcomes(service(command)).checks[0].status is Status.CRITICAL


def test_an_outcome_that_was_not_found_out_again_for_long_counts_as_failed(
    commands: Commands, wakeups: Wakeups, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = script("exit 0")
    commands.follow({"c": command})
    assert wakeups.take(10)
    assert commands.with_outcomes(service(command)).checks[0].status is Status.PASSING
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + command.patience + 1)
    assert commands.with_outcomes(service(command)).checks[0].status is Status.CRITICAL


def test_a_script_sees_nothing_of_ours(
    commands: Commands, wakeups: Wakeups, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    ours = tmp_path / "ours"
    ours.touch(mode=0o600)
    command = script(f'test -z "$CONSUL_HTTP_TOKEN" && ! cat {ours}')
    commands.follow({"c": command})
    assert wakeups.take(10)
    assert commands.with_outcomes(service(command)).checks[0].status is Status.PASSING


def test_a_script_is_run_again_and_only_a_change_is_told(commands: Commands, wakeups: Wakeups, tmp_path: Path) -> None:
    command = script(f"! test -e {tmp_path}/stop", interval=0.1)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    commands.follow({"c": command})
    assert wakeups.take(10)
    assert commands.with_outcomes(service(command)).checks[0].status is Status.PASSING
    assert not wakeups.take(0.5)
    (tmp_path / "stop").touch()
    assert wakeups.take(10)
    assert commands.with_outcomes(service(command)).checks[0].status is not Status.PASSING


def test_what_is_followed_anew_runs_once_at_a_time(commands: Commands, wakeups: Wakeups, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    command = script(f"echo run >> {log}")
    for _ in range(5):
        commands.follow({"c": command})
        commands.follow({})
    commands.follow({"c": command})
    assert wakeups.take(10)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert not wakeups.take(0.1)
    # At most what had begun before it was no longer followed; none of those is scheduled again.
    assert len(commands._due) <= 6
    assert sum(1 for *_, known in commands._due if commands._is_followed(known)) == 1


def run_commands(made: Registrator) -> None:
    made.commands.start()
    made._todo.add(made.wakeups.take(10))
    turn(made)
    made.commands.follow({})


@pytest.mark.parametrize("initial", [(), ("SERVICE_CHECK_INITIAL_STATUS=passing",)])
def test_the_outcome_of_a_command_is_reported_when_there_is_one(initial: tuple[str, ...]) -> None:
    node = Node()
    node.containers.append(plain("SERVICE_CHECK_SCRIPT=exit 0", *initial))
    made = node.registrator()
    turn(made)
    assert node.consul.statuses() == {"passing" if initial else "critical"}
    run_commands(made)
    assert node.consul.statuses() == {"passing"}
    # Another registrator has not run the command at first.
    for known in ("passing", "warning", "critical"):
        for check in node.consul.checks.values():
            check["Status"] = known
        made = node.registrator()
        turn(made)
        turn(made, later=3600)
        assert node.consul.statuses() == {known}
    run_commands(made)
    assert node.consul.statuses() == {"passing"}
