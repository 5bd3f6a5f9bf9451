"""Health checks of services: those that SERVICE_CHECK_* asks for, the container's HEALTHCHECK, and heartbeats."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from swarmer.node.registrator.metadata import Attributes

INTERVAL: Final = "10s"

#: The default time-out of a command in seconds, which is consul's limit for scripts.
COMMAND_TIMEOUT: Final = 30.0

#: Seconds between two runs of a command, and that it may take, at most: threads can't wait for ever so long.
LONGEST: Final = 86_400.0

#: Seconds after which a HEALTHCHECK that nobody reports any more counts as failed, and between two reports.
HEALTH_TTL: Final = 600
HEALTH_REFRESH: Final = 200


class Status(StrEnum):
    """Consul's words for the state of a check."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class CheckCommand:
    """A shell command whose exit status is the status of a service: 0 passing, 1 warning, any other critical.

    The registrator runs it. Consul's agent listens on the network, so it must neither have access to docker nor run
    commands that it receives.

    Attributes:
        container: the full ID of the container that it runs in, or "" for this node.
        interval, timeout: seconds.
    """

    text: str
    container: str
    interval: float
    timeout: float

    @property
    def patience(self) -> float:
        """Seconds after which an outcome that isn't renewed counts as a failure."""
        return 30 + 2 * self.interval + self.timeout


@dataclass(frozen=True)
class Check:
    """One check of a service.

    Attributes:
        id: unique on the agent.
        definition: its fields in consul's agent API, without the status.
        status: what it is at registration, or None for consul's default (critical).
        refresh: seconds between two reports of its status by us; None if we don't report it.
        command: the command that determines the status, if any.
        judged: whether the command was run, so that the status is its outcome.
    """

    id: str
    definition: Mapping[str, Any]
    status: Status | None = None
    refresh: float | None = None
    command: CheckCommand | None = None
    judged: bool = False


@dataclass(frozen=True)
class Target:
    """What is checked: a service's ID, its address and port, and the container that runs it, or None.

    Attributes:
        exposed: the port within the container.
    """

    id: str
    address: str
    port: int
    exposed: int
    container: str | None

    @property
    def host_port(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


def check_of_attributes(target: Target, attributes: Attributes) -> tuple[Check, ...]:
    """The check of SERVICE_CHECK_*, if any: the first kind that has a value."""
    command = None
    definition = _by_http(target, attributes)
    if definition is None and (command := _command(target, attributes)):
        definition = {"TTL": f"{command.patience:.0f}s"}
    if definition is None:
        definition = _others(target, attributes)
    if definition is None:
        return ()
    get = attributes.get
    if "TTL" not in definition:
        definition["Interval"] = get("check_interval") or INTERVAL
        if timeout := get("check_timeout"):
            definition["Timeout"] = timeout
    if after := get("check_deregister_after"):
        definition["DeregisterCriticalServiceAfter"] = after
    initial = get("check_initial_status").lower()
    return (
        Check(
            # The ID that consul would choose too: programs that report their own SERVICE_CHECK_TTL rely on it.
            f"service:{target.id}",
            {"Name": "requested by SERVICE_CHECK", **definition},
            Status(initial) if initial in set(Status) else None,
            command.patience / 3 if command else None,
            command,
        ),
    )


def _by_http(target: Target, attributes: Attributes) -> dict[str, Any] | None:
    get = attributes.get
    insecure = {"TLSSkipVerify": True} if _true(get("check_tls_skip_verify")) else {}
    for scheme in ("http", "https"):
        if path := get(f"check_{scheme}"):
            slash = "" if path.startswith("/") else "/"
            method = get(f"check_{scheme}_method").upper()
            return {
                "HTTP": f"{scheme}://{target.host_port}{slash}{path}",
                **({"Method": method} if method else {}),
                **(insecure if scheme == "https" else {}),
            }
    return None


def _command(target: Target, attributes: Attributes) -> CheckCommand | None:
    get = attributes.get
    interval = min(LONGEST, seconds(get("check_interval")) or seconds(INTERVAL))
    timeout = min(LONGEST, seconds(get("check_timeout")) or COMMAND_TIMEOUT)
    if (text := get("check_cmd")) and target.container:
        return CheckCommand(text, target.container, interval, timeout)
    if text := get("check_script"):
        for name, value in (("$SERVICE_IP", target.address), ("$SERVICE_PORT", str(target.port))):
            text = text.replace(name, value)
        return CheckCommand(text, "", interval, timeout)
    return None


def _others(target: Target, attributes: Attributes) -> dict[str, Any] | None:
    get = attributes.get
    if ttl := get("check_ttl"):
        return {"TTL": ttl}
    if get("check_tcp"):
        return {"TCP": target.host_port}
    if get("check_grpc"):
        insecure = {"TLSSkipVerify": True} if _true(get("check_tls_skip_verify")) else {}
        tls = {"GRPCUseTLS": True, **insecure} if _true(get("check_grpc_use_tls")) else {}
        return {"GRPC": target.host_port, **tls}
    return None


def seconds(duration: str) -> float:
    """The seconds of a duration in Go's format, such as `1m30s`; 0 if it is invalid."""
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", duration):
        return 0.0
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return sum(float(number) * units[unit] for number, unit in parts)


def healthcheck(target: Target, health: str | None) -> tuple[Check, ...]:
    """The container's own HEALTHCHECK as a consul check, if it has one.

    Args:
        health: docker's `State.Health.Status`. A container that is still `starting` doesn't get traffic yet.
    """
    if health not in ("starting", "healthy", "unhealthy"):
        return ()
    definition = {
        "Name": "container HEALTHCHECK",
        "Notes": "follows docker's view of the container",
        "TTL": f"{HEALTH_TTL}s",
    }
    status = Status.PASSING if health == "healthy" else Status.CRITICAL
    return (Check(f"healthcheck:{target.id}", definition, status, HEALTH_REFRESH),)


def heartbeat(target: Target, ttl: int, refresh: int) -> tuple[Check, ...]:
    """The heartbeat that -ttl asks for: critical once this node's registrator stopped seeing the container."""
    if not ttl:
        return ()
    definition = {"Name": "registrator heartbeat", "TTL": f"{ttl}s"}
    return (Check(f"heartbeat:{target.id}", definition, Status.PASSING, refresh),)


def _true(text: str) -> bool:
    return text.lower() not in ("", "0", "false", "no")
