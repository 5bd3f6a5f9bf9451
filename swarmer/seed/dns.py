"""The seed data of a node's DNS; the rest of its configuration is in `image/rootfs/etc/dnsmasq*.conf`.

A node's DNS skips both consul agents that don't answer and agents that answer with an error, without delay. dnsmasq
supports only one of the two at a time: with `all-servers`, the first answer is used, even if it is an error; with
`strict-order`, it queries the next server after an error, but not after a time-out. So each node runs two of them: the
front one queries, in parallel, the back ones of its own node and of all consul servers; each back one queries its own
agent, and other agents if that answers with an error.

Containers use the node's address as their DNS server, set by `dns` in docker's daemon.json (`swarmer.seed.docker`); in
user-defined networks, docker's embedded server forwards to it.

The C library looks a node's own name up in `/etc/hosts`, which docker copies into containers on the node's network.
Sources: the manual of dnsmasq, and the observed behaviour of 2.90 and 2.91; hosts(5); RFC 8020.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

from swarmer.ports import CONSUL_DNS, DNS_OF_CONSUL
from swarmer.spec import Server, Spec
from swarmer.spec.model import DNS_WORDS
from swarmer.spec.values import LOOPBACK_NAMES

#: The names in a domain of consul that have no records, but names below them.
_NON_TERMINALS: Final = ("", *(f"{word}." for word in DNS_WORDS))


def files(spec: Spec, server: Server, resolvers: Sequence[IPv4Address]) -> Mapping[str, str]:
    """Path on the node to content.

    Args:
        resolvers: the servers for names outside of the cluster. If empty, such names don't exist: the C library
            takes any other error as the end of a search list, and doesn't try its next domain.
    """
    peers = [peer.ip for peer in spec.consul_servers if peer != server]
    front = [f"listen-address={server.ip}"]
    front += _cluster(spec, [f"{ip}#{DNS_OF_CONSUL.number}" for ip in (server.ip, *peers)])
    front += _unused_addresses(spec)
    front += [f"server={ip}" for ip in resolvers] or ["local=/#/"]
    front += _non_terminals(spec.domain, spec.stack)
    back = [f"listen-address={server.ip}", f"port={DNS_OF_CONSUL.number}"]
    back += _cluster(spec, [f"{ip}#{CONSUL_DNS.number}" for ip in ("127.0.0.1", *peers)])
    return {
        "/etc/swarmer/dns.conf": "\n".join(front) + "\n",
        "/etc/swarmer/dns-consul.conf": "\n".join(back) + "\n",
        "/etc/resolv.conf": f"nameserver {server.ip}\noptions timeout:1 attempts:3\n",
        "/etc/hosts": _hosts(server, spec.domain),
    }


def _cluster(spec: Spec, servers: Sequence[str]) -> list[str]:
    """The lines that forward queries for the cluster's names and addresses to `servers`, each `ADDRESS#PORT`."""
    domains = (spec.stack, *(node.ip.reverse_pointer for node in spec.servers))
    return [f"server=/{domain}/{server}" for domain in domains for server in servers]


def _unused_addresses(spec: Spec) -> list[str]:
    """The lines by which addresses of no node have no names.

    Consul fails at them instead of saying so, and `strict-order` answers nothing if all servers fail.
    """
    used = {node.ip for node in spec.servers}
    if spec.admin_network.prefixlen <= 24:
        return [f"rev-server={spec.admin_network}"]  # without a server; the longer names of the nodes take precedence
    return [f"local=/{ip.reverse_pointer}/" for ip in spec.admin_network if ip not in used]


def _non_terminals(*domains: str) -> list[str]:
    """The lines by which names without records exist. Consul answers that they don't, and so nothing below them.

    dnsmasq turns such an answer into one without records if it has a record of any type for the name.
    """
    return [f"txt-record={prefix}{domain}" for domain in domains for prefix in _NON_TERMINALS]


def _hosts(server: Server, domain: str) -> str:
    return (
        f"127.0.0.1 localhost\n::1 {' '.join(LOOPBACK_NAMES)}\n{server.ip} {server.name}.node.{domain} {server.name}\n"
    )
