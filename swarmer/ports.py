"""Every port a node listens on: the one table that firewall, security groups and the port scan read.

Plain facts without imports from the harness, so that code on the nodes can read them too.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Port:
    """One listening port of a node.

    Attributes:
        number: the port.
        protocols: `tcp`, `udp` or both.
        reach: `admin` listens on the node's address in the admin network, `loopback` only on 127.0.0.0/8.
        service: the systemd unit that listens, without `.service`.
        role: `server` where only consul servers listen, `every` for all nodes.
    """

    number: int
    protocols: tuple[Literal["tcp", "udp"], ...]
    reach: tuple[Literal["admin", "loopback"], ...]
    service: str
    role: Literal["server", "every"] = "every"


SSH: Final = Port(22, ("tcp",), ("admin",), "ssh")
DNS: Final = Port(53, ("tcp", "udp"), ("admin",), "swarmer-dns")
CONSUL_RPC: Final = Port(8300, ("tcp",), ("admin",), "consul", role="server")
CONSUL_GOSSIP: Final = Port(8301, ("tcp", "udp"), ("admin",), "consul")
CONSUL_HTTPS: Final = Port(8500, ("tcp",), ("admin", "loopback"), "consul")
CONSUL_DNS: Final = Port(8600, ("tcp", "udp"), ("loopback",), "consul")
#: What the DNS of the other nodes asks when their own agent has an error.
CONSUL_DNS_OF_SERVERS: Final = Port(8600, ("tcp", "udp"), ("admin",), "consul", role="server")
#: What the DNS of every node asks, so that it can pass over an agent that is silent.
DNS_OF_CONSUL: Final = Port(8601, ("tcp", "udp"), ("admin",), "swarmer-dns-consul")
DOCKER: Final = Port(2376, ("tcp",), ("admin",), "docker")

PORTS: Final = (
    *(SSH, DNS, CONSUL_RPC, CONSUL_GOSSIP, CONSUL_HTTPS),
    *(CONSUL_DNS, CONSUL_DNS_OF_SERVERS, DNS_OF_CONSUL),
)
