"""The seed data of a node's packet filter: the addresses of the nodes, and the ports that only they may connect to.

The rules themselves are in `image/rootfs/usr/share/swarmer/firewall.nft`. Source: the manual of nft(8), "define".
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from swarmer.ports import PORTS, VXLAN
from swarmer.spec import Spec

#: Where the seed data puts the definitions.
FILE: Final = "/etc/swarmer/firewall.nft"


def files(spec: Spec) -> Mapping[str, str]:
    """Path on the node to content; the same on all nodes of a cluster, and not secret."""
    lines = [
        _define("nodes", sorted(server.ip for server in spec.servers)),
        _define("tcp_among_nodes", ports_among_nodes("tcp")),
        _define("udp_among_nodes", ports_among_nodes("udp")),
        f"define vxlan_port = {VXLAN.number}\n",
    ]
    return {FILE: "".join(lines)}


def ports_among_nodes(protocol: Literal["tcp", "udp"]) -> list[int]:
    """The ports that are open to the nodes of the cluster only."""
    return sorted(port.number for port in PORTS if port.senders == "nodes" and protocol in port.protocols)


def _define(name: str, elements: Iterable[object]) -> str:
    return f"define {name} = {{ {', '.join(map(str, elements))} }}\n"
