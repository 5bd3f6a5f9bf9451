"""What a node's DNS is told by the seed data; the rest stands in `image/rootfs/etc/dnsmasq*.conf`.

A node's DNS passes over an agent that is silent, and one that has an error, both at once. dnsmasq can do either,
not both: with `all-servers` the first answer counts, also when it is an error; with `strict-order` an error makes
it ask the next, but silence doesn't. So there are two of it in a row: the DNS of a node asks the second one of all
consul servers and its own at once; that one asks its own agent, and others when that has an error.

Containers get the node's address as their server by `dns` of docker's daemon.json (`docker_config`), by way of
docker's own server in networks of a user. Sources: the manual of dnsmasq, and what was seen of 2.90 and 2.91.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from swarmer.ports import CONSUL_DNS, DNS_OF_CONSUL
from swarmer.spec import Server, Spec


def files(spec: Spec, server: Server, resolvers: Sequence[IPv4Address]) -> Mapping[str, str]:
    """Path on the node to content.

    Args:
        resolvers: the servers for all names outside of the cluster. With none, dnsmasq refuses them at once.
    """
    peers = [peer.ip for peer in spec.consul_servers if peer != server]
    front = [f"listen-address={server.ip}"]
    front += _cluster(spec, (f"{ip}#{DNS_OF_CONSUL.number}" for ip in (server.ip, *peers)))
    front += [f"server={ip}" for ip in resolvers]
    back = [f"listen-address={server.ip}", f"port={DNS_OF_CONSUL.number}"]
    back += _cluster(spec, (f"{ip}#{CONSUL_DNS.number}" for ip in ("127.0.0.1", *peers)))
    return {
        "/etc/swarmer/dns.conf": "\n".join(front) + "\n",
        "/etc/swarmer/dns-consul.conf": "\n".join(back) + "\n",
        "/etc/resolv.conf": f"nameserver {server.ip}\noptions timeout:1 attempts:3\n",
    }


def _cluster(spec: Spec, servers: Iterable[str]) -> list[str]:
    """Whom to ask for names and addresses of the cluster, `ADDRESS#PORT` each."""
    lines = []
    for server in servers:
        lines += [f"server=/{spec.stack}/{server}", f"rev-server={spec.admin_network},{server}"]
    return lines
