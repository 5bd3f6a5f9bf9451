"""The services that a node should have, and the steps until its agent has them. Pure functions, no I/O."""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from swarmer.node.registrator.addresses import Inspection, shared_network
from swarmer.node.registrator.checks import Check, Status
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.services import (
    CONTAINER,
    OWNER,
    RESERVED,
    UNADDRESSABLE,
    Service,
    distinct,
    is_addressable,
    services_of,
    swarm_service_id,
)
from swarmer.node.registrator.swarm_services import SwarmService, mesh_services_of


@dataclass(frozen=True)
class RegisteredService:
    """A service as the agent holds it, ours or not.

    Attributes:
        checks: check ID to status.
    """

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    checks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A service that isn't registered, and the reason.

    Attributes:
        final: whether the service can't be registered whatever else consul holds.
    """

    service: Service
    reason: str
    final: bool = False


@dataclass(frozen=True)
class Plan:
    """Steps towards the wanted state; all empty when it is reached.

    Attributes:
        deregister: IDs of services, done first.
        register: services that are missing or different.
        report: checks whose status is to be reported, because it changed or is due.
        refused: services with an ID that they can't have.
    """

    deregister: tuple[str, ...] = ()
    register: tuple[Service, ...] = ()
    report: tuple[Check, ...] = ()
    refused: tuple[Refusal, ...] = ()


def desired_services(
    containers: Mapping[str, Inspection],
    swarm_services: Iterable[SwarmService],
    options: Options,
    *,
    host_address: str,
    labels: Mapping[str, Mapping[str, str]],
    open_ports: Container[str] = (),
) -> list[Service]:
    """All services that this node should have, with distinct IDs, sorted by ID.

    Args:
        containers: ID to inspection.
        labels: ID of a swarm service to its labels.
        open_ports: the ports of the routing mesh that docker forwards on this node, such as `80/tcp`.
    """
    found: list[Service] = []
    for container in sorted(containers.values(), key=lambda container: (container.get("Created", ""), container["Id"])):
        found += services_of(
            container,
            options,
            host_address=host_address,
            network_container=containers.get(shared_network(container)),
            service_labels=labels.get(swarm_service_id(container)),
        )
    for service in swarm_services:
        found += mesh_services_of(service, options, host_address=host_address, open_ports=open_ports)
    return distinct(found)


def difference(
    wanted: Iterable[Service],
    registered: Iterable[RegisteredService],
    *,
    hostname: str,
    keep: Collection[str] = (),
    due: Collection[str] = (),
) -> Plan:
    """The plan from what is registered to what is wanted.

    Args:
        wanted: services with distinct IDs.
        hostname: our mark. Services without it are never touched, unless one has an ID of our form.
        keep: the first twelve characters of the IDs of containers whose services stay although they aren't wanted.
        due: IDs of checks that have to be reported again.
    """
    present = {service.id: service for service in registered}
    register, report, refused, allowed = [], [], [], set()
    for service in wanted:
        other = present.get(service.id)
        taken = other and other.meta.get(OWNER) != hostname and not service.id.startswith(f"{hostname}:")
        if taken or service.id in RESERVED:
            reason = "another program's service has that ID"
            refused.append(Refusal(service, reason, final=service.id in RESERVED))
            continue
        if not is_addressable(service.id):
            refused.append(Refusal(service, UNADDRESSABLE, final=True))
            continue
        allowed.add(service.id)
        if other is None or not same(service, other):
            register.append(service)
        if other is not None:
            report += [check for check in service.checks if _to_report(check, other.checks.get(check.id), due)]
    gone = [
        service.id
        for service in present.values()
        if service.meta.get(OWNER) == hostname
        and service.id not in allowed
        and service.meta.get(CONTAINER, "") not in keep
    ]
    return Plan(tuple(sorted(gone)), tuple(register), tuple(report), tuple(refused))


def keep_untouched(
    wanted: Iterable[Service], registered: Iterable[RegisteredService], containers: Collection[str]
) -> list[Service]:
    """The wanted services, but those of some containers just as the agent holds them; what it doesn't hold is left out.

    Left out are their checks by command, too: these may be due to change as well.

    Args:
        containers: the first twelve characters of their IDs.
    """
    present = {service.id: service for service in registered}
    found = []
    for service in wanted:
        held = present.get(service.id)
        holder = held.meta.get(CONTAINER, "") if held else ""
        if service.container[:12] not in containers and holder not in containers:
            found.append(service)
        elif held and service.container[:12] == holder:
            found.append(_held_service(service, held))
    return found


def _held_service(service: Service, held: RegisteredService) -> Service:
    checks = tuple(check for check in service.checks if check.id in held.checks and not check.command)
    return replace(
        service, name=held.name, address=held.address, port=held.port, tags=held.tags, meta=held.meta, checks=checks
    )


def same(service: Service, registered: RegisteredService) -> bool:
    """Whether the agent holds the service just so. Statuses of checks don't matter, their existence does."""
    return (
        service.name == registered.name
        and service.address == registered.address
        and service.port == registered.port
        and service.tags == registered.tags
        and dict(service.meta) == dict(registered.meta)
        and {check.id for check in service.checks} <= set(registered.checks)
    )


def _to_report(check: Check, status: str | None, due: Collection[str]) -> bool:
    # Until a command was run, the agent knows better: it may hold the outcome that we reported before a restart.
    if check.refresh is None or (check.command and not check.judged):
        return False
    return status != (check.status or Status.CRITICAL) or check.id in due
