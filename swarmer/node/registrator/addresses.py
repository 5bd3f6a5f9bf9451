"""The ports of a container and their addresses. Pure functions of docker's inspection."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from swarmer.node.registrator.options import Options

Inspection = Mapping[str, Any]

#: The key by which an inspection has the addresses of docker's bridges, if one of its ports may be published there.
BRIDGES: Final = "bridges"

#: Networks of swarm's routing mesh: an address of a container there is never announced.
_MESH_NETWORKS: Final = frozenset({"ingress", "docker_gwbridge"})


@dataclass(frozen=True)
class Port:
    """A port of a container.

    Attributes:
        number: within the container.
        protocol: `tcp`, `udp` or `sctp`.
        host_ip, host_port: where it is published, "" and None when it isn't.
    """

    number: int
    protocol: str
    host_ip: str = ""
    host_port: int | None = None


def ports_of(container: Inspection, on_host: str = "") -> list[Port]:
    """The exposed and published ports, sorted. Of several bindings, the first that other nodes can reach counts.

    Args:
        on_host: the address at which ports are announced that are published on all addresses; "" if it isn't known.
    """
    exposed = container["Config"].get("ExposedPorts") or {}
    published: Mapping[str, Any] = (container.get("NetworkSettings") or {}).get("Ports") or {}
    direct = _on_host_network(container) or bool(shared_network(container))
    bridges = frozenset(container.get(BRIDGES) or ())
    ports = []
    for key in {*exposed, *published}:
        number, _, protocol = key.partition("/")
        if not number.isdecimal() or not 0 < int(number) < 65536:
            continue
        port = Port(int(number), protocol.lower() or "tcp")
        bindings = [one for one in published.get(key) or () if (one.get("HostPort") or "0") != "0"]
        if bindings:
            reached = (one for one in bindings if binding_address(one.get("HostIp") or "", on_host, bridges))
            first = next(reached, bindings[0])
            port = replace(port, host_ip=first.get("HostIp") or "", host_port=int(first["HostPort"]))
        elif direct:
            port = replace(port, host_port=port.number)
        ports.append(port)
    return sorted(ports, key=lambda port: (port.number, port.protocol))


def binding_address(host_ip: str, on_host: str, bridges: Iterable[str]) -> str:
    """The address at which other nodes reach a port that is published on `host_ip`, or "".

    A loopback or link-local address, or the one of a bridge of docker, is another machine for another node.

    Args:
        host_ip: "" for all addresses; `0.0.0.0` and `::` are all addresses of their family alone.
        on_host: as of `ports_of`.
        bridges: the addresses of docker's bridges. Docker keeps them as they were written, such as FD00:0::1.
    """
    address = _parsed(host_ip)
    if address is None or address.is_unspecified:
        host = _parsed(on_host)
        return on_host if address is None or host is None or host.version == address.version else ""
    return "" if address.is_loopback or address.is_link_local or address in map(_parsed, bridges) else str(address)


def is_published_on_one_address(container: Inspection) -> bool:
    """Whether a port is published on a certain address of the host, which may be the one of a bridge."""
    published: Mapping[str, Any] = (container.get("NetworkSettings") or {}).get("Ports") or {}
    addresses = [_parsed(one.get("HostIp") or "") for bindings in published.values() for one in bindings or ()]
    return any(address and not address.is_unspecified and not address.is_loopback for address in addresses)


def address_of(
    port: Port,
    container: Inspection,
    labels: Mapping[str, str],
    options: Options,
    host_address: str,
    network_container: Inspection | None,
) -> str:
    """The address of a port, or "" if it isn't known. Later sources take precedence."""
    on_host = options.ip or host_address
    address = binding_address(port.host_ip, on_host, container.get(BRIDGES) or ())
    if options.ip and address:
        address = options.ip
    if options.internal:
        address = on_host if _on_host_network(container) else container_address(container)
    if labelled := _usable(labels.get(options.ip_label, "")) if options.ip_label else "":
        address = labelled
    if shared_network(container):
        if network_container is None:
            return ""
        address = on_host if _on_host_network(network_container) else container_address(network_container)
    return address


def container_address(container: Inspection) -> str:
    """The address of a container in its own network, preferring the one it was started in; or ""."""
    settings = container.get("NetworkSettings") or {}
    networks: Mapping[str, Any] = settings.get("Networks") or {}
    mode = (container.get("HostConfig") or {}).get("NetworkMode") or ""
    first = [name for name in (mode, *sorted(networks)) if name in networks and name not in _MESH_NETWORKS]
    for name in first:
        if address := _usable((networks[name] or {}).get("IPAddress") or ""):
            return address
    return _usable(settings.get("IPAddress") or "")


def shared_network(container: Inspection) -> str:
    """The ID of the container whose network this one shares, or ""."""
    mode: str = (container.get("HostConfig") or {}).get("NetworkMode") or ""
    return mode.removeprefix("container:") if mode.startswith("container:") else ""


def _on_host_network(container: Inspection) -> bool:
    return (container.get("HostConfig") or {}).get("NetworkMode") == "host"


def _usable(text: str) -> str:
    """An address without its prefix length, or "" if the text isn't one."""
    return str(_parsed(text.rpartition("/")[0] if "/" in text else text) or "")


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None
