"""The part of a node's seed data that depends on its stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from swarmer.spec import Server, Spec


@dataclass(frozen=True)
class NodeEnvironment:
    """The settings of one node that its stack decides.

    Attributes:
        network: the node's network configuration, in version 2 of cloud-init's format.
        resolvers: the servers that the node queries for names outside of the cluster; empty without internet.
        port_rules: path on the node to content: the files with which the node enforces `swarmer.ports` itself.
        slowness: the factor by which the machine is slower than normal.
        consul_first: whether all other services wait at boot until consul has formed.
    """

    network: Mapping[str, Any]
    resolvers: Sequence[IPv4Address] = ()
    port_rules: Mapping[str, str] = field(default_factory=dict)
    slowness: float = 1
    consul_first: bool = False


def static_network(
    spec: Spec, server: Server, interface: Mapping[str, Any], *, gateway: IPv4Address | None
) -> dict[str, Any]:
    """The network configuration of a node with the static address of its spec.

    Args:
        interface: the admin interface, as the stack identifies it: `{"host0": {}}`, or
            `{"admin": {"match": {"macaddress": …}}}`.
        gateway: the default gateway; None if the node reaches only the admin network.
    """
    address: dict[str, Any] = {
        "addresses": [f"{server.ip}/{spec.admin_network.prefixlen}"],
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": [],
    }
    if gateway:
        address["routes"] = [{"to": "0.0.0.0/0", "via": str(gateway)}]
    return {"version": 2, "ethernets": {name: {**match, **address} for name, match in interface.items()}}
