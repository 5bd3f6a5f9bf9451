"""What a node's DNS is told by the seed data; the rest stands in `image/rootfs/etc/dnsmasq.conf`.

Sources: the manual of dnsmasq, `--server`, `--rev-server`, `--strict-order`, `--fast-dns-retry`; `dns` of
docker's daemon.json, which containers get as their server, by way of docker's own in networks of a user.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from swarmer import resolv_conf
from swarmer.ports import CONSUL_DNS
from swarmer.spec import Server, Spec

#: Amazon's own server, at this address in every VPC.
_OF_AWS: Final = IPv4Address("169.254.169.253")


def files(spec: Spec, server: Server) -> Mapping[str, str]:
    """Path on the node to content."""
    return {
        "/etc/swarmer/dns.conf": dnsmasq(spec, server),
        "/etc/resolv.conf": f"nameserver {server.ip}\noptions timeout:1 attempts:3\n",
        "/etc/docker/daemon.json": json.dumps({"dns": [str(server.ip)]}, indent=1) + "\n",
    }


def dnsmasq(spec: Spec, server: Server) -> str:
    """Where the node listens, and whom it asks: its own agent, then the consul servers, for the cluster's names.

    For other names it asks what the host asks, where the cluster may reach out; else it refuses them at once.
    """
    peers = [peer.ip for peer in spec.consul_servers if peer != server]
    agents = [f"{ip}#{CONSUL_DNS.number}" for ip in ("127.0.0.1", *peers)]
    lines = [f"listen-address={server.ip}"]
    for agent in agents:
        lines += [f"server=/{spec.stack}/{agent}", f"rev-server={spec.admin_network},{agent}"]
    if spec.internet:
        outside = [_OF_AWS] if spec.stack == "aws" else resolv_conf.reachable_from_nodes()
        lines += [f"server={ip}" for ip in outside]
    return "\n".join(lines) + "\n"
