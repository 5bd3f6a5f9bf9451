"""Health checks of services: those that SERVICE_CHECK_* asks for, the container's HEALTHCHECK, and heartbeats."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from swarmer.node.registrator.metadata import Attributes

INTERVAL: Final = "10s"

#: Seconds after which a HEALTHCHECK that nobody reports any more counts as failed, and between two reports.
HEALTH_TTL: Final = 600
HEALTH_REFRESH: Final = 200


class Status(StrEnum):
    """Consul's words for the state of a check."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Check:
    """One check of a service.

    Attributes:
        id: unique on the agent.
        definition: its fields in consul's agent API, without the status.
        status: what it is at registration, or None for consul's default (critical).
        refresh: seconds between two reports of its status by us; None when somebody else finds it out.
    """

    id: str
    definition: Mapping[str, Any]
    status: Status | None = None
    refresh: float | None = None


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


def requested(target: Target, attributes: Attributes) -> tuple[Check, ...]:
    """The check that SERVICE_CHECK_* describes, if any. The first kind wins that has a value."""
    definition = _definition(target, attributes)
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
    status = Status(initial) if initial in set(Status) else None
    # The ID that consul would choose too: programs that report their own SERVICE_CHECK_TTL rely on it.
    return (Check(f"service:{target.id}", {"Name": "requested by SERVICE_CHECK", **definition}, status),)


def _definition(target: Target, attributes: Attributes) -> dict[str, Any] | None:
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
    if (command := get("check_cmd")) and target.container:
        return {"DockerContainerID": target.container, "Shell": "/bin/sh", "Args": ["/bin/sh", "-c", command]}
    if script := get("check_script"):
        for name, value in (("$SERVICE_IP", target.address), ("$SERVICE_PORT", str(target.port))):
            script = script.replace(name, value)
        return {"Args": ["/bin/sh", "-c", script]}
    if ttl := get("check_ttl"):
        return {"TTL": ttl}
    if get("check_tcp"):
        return {"TCP": target.host_port}
    if get("check_grpc"):
        tls = {"GRPCUseTLS": True, **insecure} if _true(get("check_grpc_use_tls")) else {}
        return {"GRPC": target.host_port, **tls}
    return None


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
