"""The ports of a container and their addresses. Pure functions of docker's inspection."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from swarmer.node.registrator.options import Options

Inspection = Mapping[str, Any]

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


def ports_of(container: Inspection) -> list[Port]:
    """The exposed and published ports, sorted. The first binding of a port counts."""
    exposed = container["Config"].get("ExposedPorts") or {}
    published: Mapping[str, Any] = (container.get("NetworkSettings") or {}).get("Ports") or {}
    direct = _on_host_network(container) or bool(shared_network(container))
    ports = []
    for key in {*exposed, *published}:
        number, _, protocol = key.partition("/")
        if not number.isdecimal() or not 0 < int(number) < 65536:
            continue
        port = Port(int(number), protocol.lower() or "tcp")
        bindings = published.get(key) or ()
        if bindings and (bindings[0].get("HostPort") or "0") != "0":
            port = replace(port, host_ip=bindings[0].get("HostIp") or "", host_port=int(bindings[0]["HostPort"]))
        elif direct:
            port = replace(port, host_port=port.number)
        ports.append(port)
    return sorted(ports, key=lambda port: (port.number, port.protocol))


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
    address = on_host if options.ip or port.host_ip in ("", "0.0.0.0", "::") else _reachable(port.host_ip)
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


def _reachable(address: str) -> str:
    """An address that other nodes can reach, or "": a loopback address is a different machine on each node."""
    usable = _usable(address)
    return "" if usable and ipaddress.ip_address(usable).is_loopback else usable


def _on_host_network(container: Inspection) -> bool:
    return (container.get("HostConfig") or {}).get("NetworkMode") == "host"


def _usable(text: str) -> str:
    """An address without its prefix length, or "" if the text isn't one."""
    plain = text.rpartition("/")[0] if "/" in text else text
    try:
        return str(ipaddress.ip_address(plain.strip()))
    except ValueError:
        return ""
