"""All services that a node should have. A pure function of what docker runs on it, and of its swarm."""

from collections.abc import Iterable, Mapping

from swarmer.node.registrator.addresses import Inspection, shared_network
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.services import Service, distinct, services_of, swarm_service_id
from swarmer.node.registrator.swarm import SwarmService, mesh_services_of


def wanted(
    containers: Mapping[str, Inspection],
    swarm_services: Iterable[SwarmService],
    options: Options,
    *,
    host_address: str,
    labels: Mapping[str, Mapping[str, str]],
) -> list[Service]:
    """All services that this node should have, with distinct IDs, sorted by ID.

    Args:
        containers: ID to inspection.
        labels: ID of a swarm service to its labels.
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
        found += mesh_services_of(service, options, host_address=host_address)
    return distinct(found)
