"""The common part of stacks whose nodes run on this machine, behind a bridge."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from swarmer import resolv_conf
from swarmer.seed.environment import static_network
from swarmer.spec import Server
from swarmer.stacks.base import Stack


class BridgedStack(Stack):
    """This host has the first address of the admin network, is the nodes' gateway and reaches them directly."""

    @abstractmethod
    def interface(self, server: Server) -> Mapping[str, Mapping[str, Any]]:
        """A node's admin interface in its network configuration: the name, and the keys that match the interface."""

    def network_config(self, server: Server) -> Mapping[str, Any]:
        gateway = self.spec.host_address if self.spec.internet else None
        return static_network(self.spec, server, self.interface(server), gateway=gateway)

    def resolvers(self) -> Sequence[IPv4Address]:
        return resolv_conf.reachable_from_nodes() if self.spec.internet else []

    def notes(self) -> list[str]:
        if not self.spec.internet or self.resolvers():
            return []
        listed = ", ".join(map(str, resolv_conf.servers_of_host()))
        return [
            "nodes resolve names of the cluster only, despite `internet: true`: "
            + (f"they can't reach the DNS servers of this host ({listed})" if listed else "this host has no DNS server")
            + "; before the launch, add a `nameserver` line with an IPv4 address that they can reach to "
            f"{resolv_conf.RESOLV_CONF}"
        ]

    def endpoint(self, server: Server) -> IPv4Address:
        return server.ip
