"""Services of a swarm: the ports of its routing mesh, and the labels that tasks can't see. Pure functions."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from swarmer.node.registrator.checks import Target
from swarmer.node.registrator.metadata import PREFIX, attributes, environment
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.services import Service, make, service_name
from swarmer.node.registrator.templates import filled_in

#: One element of docker's list of services, with `ServiceStatus`.
SwarmService = Mapping[str, Any]


def mesh_services_of(
    service: SwarmService, options: Options, *, host_address: str, open_ports: Container[str]
) -> list[Service]:
    """The ports of a swarm service that every node forwards, as this manager announces them; sorted by port.

    There are none while no task of the service runs: the routing mesh would refuse the connection. Nor are
    there with `-internal`, where tasks are announced themselves.

    Args:
        open_ports: the ports that docker forwards on this node, such as `80/tcp`.
    """
    address = options.ip or host_address
    if options.internal or not address or not running_tasks(service):
        return []
    specification = service["Spec"]
    container = (specification.get("TaskTemplate") or {}).get("ContainerSpec") or {}
    own, labels = container.get("Labels") or {}, specification.get("Labels") or {}
    variables = filled_in(
        environment(container.get("Env")), identity=service["ID"], name=specification["Name"], labels=labels
    )
    ports = _published_ports(service)
    found = []
    for port in sorted(_mesh_ports(ports), key=lambda port: (port["PublishedPort"], port.get("Protocol") or "")):
        if _key(port) not in open_ports:
            continue
        exposed, published = int(port["TargetPort"]), int(port["PublishedPort"])
        protocol = port.get("Protocol") or "tcp"
        metadata = attributes(exposed, variables, own, labels)
        name = service_name(metadata, specification["Name"], exposed, group=len(ports) > 1, options=options)
        if not name:
            continue
        suffix = "" if protocol == "tcp" else f":{protocol}"
        # No container can have this name, and a published port is unique in the swarm. SERVICE_ID is for containers.
        target = Target(
            f"{options.hostname}:{specification['Name']}@mesh:{published}{suffix}", address, published, exposed, None
        )
        found.append(make(target, name, metadata, options, protocol=protocol))
    return found


def forwarded_ports(services: Iterable[SwarmService]) -> set[str]:
    """The ports of the mesh that docker should forward, such as `80/tcp`: those of services with a running task."""
    return {
        _key(port) for service in services if running_tasks(service) for port in _mesh_ports(_published_ports(service))
    }


def _published_ports(service: SwarmService) -> list[Mapping[str, Any]]:
    return [port for port in (service.get("Endpoint") or {}).get("Ports") or () if port.get("PublishedPort")]


def _mesh_ports(ports: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [port for port in ports if port.get("PublishMode", "ingress") == "ingress"]


def _key(port: Mapping[str, Any]) -> str:
    return f"{port['PublishedPort']}/{port.get('Protocol') or 'tcp'}"


def running_tasks(service: SwarmService) -> int:
    """How many tasks of the service run."""
    return int((service.get("ServiceStatus") or {}).get("RunningTasks") or 0)


def announced_labels(service: SwarmService) -> dict[str, str]:
    """The labels of a swarm service that say how to announce it."""
    labels: Mapping[str, str] = service["Spec"].get("Labels") or {}
    return {key: value for key, value in sorted(labels.items()) if key.startswith(PREFIX)}
