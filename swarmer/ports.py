"""Every port that a node listens on: the single source for the firewall, security groups and the port scan.

It imports nothing from the harness, so that code on the nodes can read it too.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Port:
    """One listening port of a node.

    Attributes:
        number: the port.
        protocols: `tcp`, `udp` or both.
        reach: `admin` listens on the node's address in the admin network, `loopback` only on 127.0.0.0/8,
            `all` on every address, if the kernel doesn't support anything else.
        service: the systemd unit that listens, without `.service`.
        role: `server` if only consul servers listen, `manager` if only swarm managers do, `every` for all nodes.
        senders: `nodes` if only packets from the nodes of the cluster are accepted, `any` if all are.
    """

    number: int
    protocols: tuple[Literal["tcp", "udp"], ...]
    reach: tuple[Literal["admin", "loopback", "all"], ...]
    service: str
    role: Literal["server", "manager", "every"] = "every"
    senders: Literal["nodes", "any"] = "any"


SSH: Final = Port(22, ("tcp",), ("admin",), "ssh")
DNS: Final = Port(53, ("tcp", "udp"), ("admin",), "swarmer-dns")
CONSUL_RPC: Final = Port(8300, ("tcp",), ("admin",), "consul", role="server", senders="nodes")
CONSUL_GOSSIP: Final = Port(8301, ("tcp", "udp"), ("admin",), "consul", senders="nodes")
CONSUL_HTTPS: Final = Port(8500, ("tcp",), ("admin", "loopback"), "consul")
CONSUL_DNS: Final = Port(8600, ("tcp", "udp"), ("loopback",), "consul")
#: Queried by the DNS of other nodes when their own agent answers with an error.
CONSUL_DNS_OF_SERVERS: Final = Port(8600, ("tcp", "udp"), ("admin",), "consul", role="server")
#: Queried by the DNS of every node, so that it can skip an agent that doesn't answer.
DNS_OF_CONSUL: Final = Port(8601, ("tcp", "udp"), ("admin",), "swarmer-dns-consul", senders="nodes")
REGISTRY: Final = Port(5000, ("tcp",), ("admin",), "nginx", role="server")
DOCKER: Final = Port(2376, ("tcp",), ("admin",), "docker")
#: Raft of the managers, and where nodes join and receive tasks: mutual TLS with certificates of the swarm's own CA.
SWARM: Final = Port(2377, ("tcp",), ("admin",), "docker", role="manager", senders="nodes")
SWARM_GOSSIP: Final = Port(7946, ("tcp", "udp"), ("admin",), "docker", senders="nodes")
#: Traffic of overlay networks. The kernel listens itself, and can't be bound to one address.
VXLAN: Final = Port(4789, ("udp",), ("all",), "docker", senders="nodes")

PORTS: Final = (
    *(SSH, DNS, CONSUL_RPC, CONSUL_GOSSIP, CONSUL_HTTPS),
    *(CONSUL_DNS, CONSUL_DNS_OF_SERVERS, DNS_OF_CONSUL, REGISTRY),
    *(DOCKER, SWARM, SWARM_GOSSIP, VXLAN),
)
