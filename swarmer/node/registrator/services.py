"""The services of a container, from docker's inspection. Pure functions, no I/O."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from swarmer.node.registrator import checks
from swarmer.node.registrator.addresses import Inspection, Port, address_of, ports_of
from swarmer.node.registrator.checks import Check, Target
from swarmer.node.registrator.metadata import MAX_META_PAIRS, Attributes, attributes, environment, tags
from swarmer.node.registrator.options import Options

#: Metadata that we write ourselves: our mark (the host), the container, and what the checks are made of.
OWNER: Final = "registrator"

#: IDs of the cluster's own services on every agent; a container with one of them would replace such a service.
RESERVED: Final = frozenset({"consul", "swarm", "registry"})
CONTAINER: Final = "registrator-container"
CHECKS: Final = "registrator-checks"
_OURS: Final = frozenset({OWNER, CONTAINER, CHECKS})

#: Why a service with another ID isn't registered.
UNADDRESSABLE: Final = (
    "consul can't remove a service whose ID begins with a slash, or contains //, /./, /../, % or a control character; "
    "set another SERVICE_ID"
)

#: A name that DNS can look up; an underscore is valid in DNS, only not in the name of a host.
_DNS_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

SWARM_SERVICE_ID: Final = "com.docker.swarm.service.id"
SWARM_SERVICE_NAME: Final = "com.docker.swarm.service.name"
COMPOSE_SERVICE_NAME: Final = "com.docker.compose.service"


@dataclass(frozen=True)
class Service:
    """One service as consul's agent is to hold it.

    Attributes:
        id: unique on the node.
        meta: includes our mark.
        container: the full ID of the container behind it, or "" for a port of swarm's routing mesh.
    """

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    checks: tuple[Check, ...]
    container: str = ""


def services_of(
    container: Inspection,
    options: Options,
    *,
    host_address: str,
    network_container: Inspection | None = None,
    service_labels: Mapping[str, str] | None = None,
) -> list[Service]:
    """The services of one container, sorted by port; none when it isn't running.

    Args:
        container: docker's inspection.
        host_address: the address of ports that are published on every address of this host.
        network_container: the inspection of the container whose network it shares, if it does.
        service_labels: labels of the swarm service it is a task of; they win over its own.
    """
    if not is_running(container):
        return []
    labels: dict[str, str] = {**(container["Config"].get("Labels") or {}), **(service_labels or {})}
    variables = environment(container["Config"].get("Env"))
    on_host = options.ip or host_address
    ports = [port for port in ports_of(container, on_host) if options.internal or port.host_port is not None]
    found = []
    for port in ports:
        metadata = attributes(port.number, variables, labels)
        address = address_of(port, container, labels, options, host_address, network_container)
        name = service_name(metadata, _default_name(container), port.number, group=len(ports) > 1, options=options)
        if not name or not address:
            continue
        number = port.number if options.internal or port.host_port is None else port.host_port
        service_id = _service_id(options.hostname, container["Name"].lstrip("/"), port, metadata, group=len(ports) > 1)
        target = Target(service_id, address, number, port.number, container["Id"])
        health = (container["State"].get("Health") or {}).get("Status")
        found.append(
            make(
                target,
                name,
                metadata,
                options,
                protocol=port.protocol,
                health=checks.healthcheck(target, health),
            )
        )
    return found


def make(
    target: Target,
    name: str,
    metadata: Attributes,
    options: Options,
    *,
    protocol: str,
    health: tuple[Check, ...] = (),
) -> Service:
    """A service with its tags, metadata and checks."""
    made_checks = (
        *checks.check_of_attributes(target, metadata),
        *health,
        *checks.heartbeat(target, options.ttl, options.ttl_refresh),
    )
    meta = {key: value for key, value in metadata.meta().items() if key not in _OURS}
    meta = dict(list(meta.items())[: MAX_META_PAIRS - len(_OURS)])
    meta[OWNER] = options.hostname
    if target.container:
        meta[CONTAINER] = target.container[:12]
    if made_checks:
        meta[CHECKS] = _digest(made_checks)
    return Service(
        id=target.id,
        name=name,
        address=target.address,
        port=target.port,
        tags=tags(metadata.get("tags"), options.tags, "udp" if protocol == "udp" else ""),
        meta=meta,
        checks=made_checks,
        container=target.container or "",
    )


def service_name(metadata: Attributes, default: str, port: int, *, group: bool, options: Options) -> str:
    """The name of a port's service, or "" when it is not to be announced.

    Args:
        group: whether there are more ports, so that each needs a name of its own.
    """
    if metadata.get("ignore"):
        return ""
    name = metadata.get("name")
    if not name and options.explicit:
        return ""
    name = name or default
    return f"{name}-{port}" if group and name and "name" not in metadata.of_port else name


def is_dns_label(name: str) -> bool:
    """Whether a service of this name can be resolved."""
    return bool(_DNS_LABEL.fullmatch(name))


def is_addressable(identity: str) -> bool:
    """Whether consul's API can take back a service of this ID: it has the ID in the path of a URL.

    Its router cleans the path, and the versions of consul differ in how often they decode it.
    """
    *inner, last = identity.split("/")
    return (
        all(inner)
        and bool(inner or last)
        and not {".", ".."} & {*inner, last}
        and "%" not in identity
        and identity.isprintable()
    )


def distinct(services: Iterable[Service]) -> list[Service]:
    """The services without those whose ID an earlier one has already, sorted by ID."""
    by_id: dict[str, Service] = {}
    for service in services:
        by_id.setdefault(service.id, service)
    return sorted(by_id.values(), key=lambda service: service.id)


def is_running(container: Inspection) -> bool:
    """Whether the container runs now. Docker calls one that waits for its restart running too."""
    state = container["State"]
    return bool(state.get("Running")) and not state.get("Restarting") and not state.get("Dead")


def swarm_service_id(container: Inspection) -> str:
    """The ID of the swarm service that a container is a task of, or ""."""
    return str((container["Config"].get("Labels") or {}).get(SWARM_SERVICE_ID, ""))


def has_failed(container: Inspection) -> bool:
    """Whether the container ended by itself with an error: neither with 0 nor by a signal (bit 128)."""
    state = container["State"]
    code = int(state.get("ExitCode") or 0)
    return not is_running(container) and state.get("Status") == "exited" and code != 0 and not code & 128


def _default_name(container: Inspection) -> str:
    """The name of a service that its container doesn't choose; what isn't valid in DNS is replaced by dashes."""
    name = _name_of_origin(container)
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or name


def _name_of_origin(container: Inspection) -> str:
    """The swarm service's name, the image's base name, or, for an image without a name, that of the container."""
    labels = container["Config"].get("Labels") or {}
    if swarm := labels.get(SWARM_SERVICE_NAME):
        return str(swarm)
    image, image_id = container["Config"].get("Image") or "", container.get("Image") or ""
    if name := image_name(image, image_id):
        return name
    return str(labels.get(COMPOSE_SERVICE_NAME) or container["Name"].lstrip("/"))


def image_name(image: str, image_id: str = "") -> str:
    """`nginx` of `registry:5000/team/nginx:1.2@sha256:…`, or "" if the image is referenced by its ID only."""
    hexadecimal = image.removeprefix("sha256:")
    if re.fullmatch(r"[0-9a-f]{6,64}", hexadecimal) and (
        image != hexadecimal or image_id.removeprefix("sha256:").startswith(hexadecimal)
    ):
        return ""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0].strip()


def _service_id(hostname: str, owner: str, port: Port, metadata: Attributes, *, group: bool) -> str:
    suffix = "" if port.protocol == "tcp" else f":{port.protocol}"
    if chosen := metadata.get("id"):
        # One SERVICE_ID for several ports would make them overwrite each other.
        return f"{chosen}:{port.number}{suffix}" if group and "id" not in metadata.of_port else chosen
    return f"{hostname}:{owner}:{port.number}{suffix}"


def _digest(made: tuple[Check, ...]) -> str:
    """Sixteen characters that change with the checks, because agents don't return the definition of a check."""
    text = json.dumps([[check.id, check.definition, str(check.command)] for check in made], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
