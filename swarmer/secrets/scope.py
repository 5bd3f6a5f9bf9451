"""The names and addresses that the CAs of a cluster may vouch for: critical name constraints in each of them.

A host that trusts these CAs (`swarmer trust`, a browser) trusts them for the cluster alone, even if their keys leak.
The exception are Java programs: they ignore the constraints of a root in their trust store, though not those of the
planes' CAs. Source: RFC 5280, 4.2.1.10.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from cryptography import x509

from swarmer.spec import Spec

#: The name in the client certificates of a cluster.
CLIENT_NAME: Final = "swarmer-client"

_LOOPBACK: Final = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True)
class Scope:
    """What a certificate of a cluster may be valid for.

    Attributes:
        domains: names, each with all names beneath it.
        networks: of addresses; no IPv6 address is allowed.
    """

    domains: tuple[str, ...]
    networks: tuple[IPv4Network, ...]

    @classmethod
    def of(cls, spec: Spec) -> "Scope":
        """The names of the nodes and services, of the client, and of the nodes and the host themselves."""
        return cls((spec.domain, "localhost", CLIENT_NAME), (spec.admin_network, _LOOPBACK))

    @property
    def constraints(self) -> x509.NameConstraints:
        """The extension for a CA; to be critical."""
        names = [*map(x509.DNSName, self.domains), *map(x509.IPAddress, self.networks)]
        return x509.NameConstraints(permitted_subtrees=names, excluded_subtrees=None)

    def covers(self, name: str | IPv4Address) -> bool:
        """Whether a certificate may be valid for a DNS name, or for an address."""
        if isinstance(name, str):
            return any(name == domain or name.endswith(f".{domain}") for domain in self.domains)
        return any(name in network for network in self.networks)

    def __str__(self) -> str:
        """`dev.nspawn, localhost, …`: all names, then all networks."""
        return ", ".join((*self.domains, *map(str, self.networks)))
