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
        reach: `admin` listens on the node's address in the admin network, `loopback` only on 127.0.0.0/8,
            `all` on every address, where the kernel leaves no choice.
        service: the systemd unit that listens, without `.service`.
        role: `server` where only consul servers listen, `manager` only swarm managers, `every` for all nodes.
        senders: `nodes` where packets from the nodes of the cluster alone are let in, `any` where everybody's are.
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
#: What the DNS of the other nodes asks when their own agent has an error.
CONSUL_DNS_OF_SERVERS: Final = Port(8600, ("tcp", "udp"), ("admin",), "consul", role="server")
#: What the DNS of every node asks, so that it can pass over an agent that is silent.
DNS_OF_CONSUL: Final = Port(8601, ("tcp", "udp"), ("admin",), "swarmer-dns-consul", senders="nodes")
REGISTRY: Final = Port(5000, ("tcp",), ("admin",), "nginx", role="server")
DOCKER: Final = Port(2376, ("tcp",), ("admin",), "docker")
#: Where managers agree, and where nodes join and get their tasks: mutual TLS with certificates of the swarm's own CA.
SWARM: Final = Port(2377, ("tcp",), ("admin",), "docker", role="manager", senders="nodes")
SWARM_GOSSIP: Final = Port(7946, ("tcp", "udp"), ("admin",), "docker", senders="nodes")
#: Traffic of networks over all nodes. The kernel itself listens, and knows no address for it.
VXLAN: Final = Port(4789, ("udp",), ("all",), "docker", senders="nodes")

PORTS: Final = (
    *(SSH, DNS, CONSUL_RPC, CONSUL_GOSSIP, CONSUL_HTTPS),
    *(CONSUL_DNS, CONSUL_DNS_OF_SERVERS, DNS_OF_CONSUL, REGISTRY),
    *(DOCKER, SWARM, SWARM_GOSSIP, VXLAN),
)
