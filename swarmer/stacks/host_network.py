"""The host's side of a cluster's network, the same for every stack on this machine."""

import json
from ipaddress import IPv4Network
from typing import Any

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.spec import Spec
from swarmer.state import ClusterHome

#: Routes for more than a /8, the largest private network, stand for the way outside.
_OWN_USE = 8

#: From here on lie the metrics of fences, the worst there are: a fence only counts when the cluster's own link is gone.
_LAST_METRICS = 0xFF000000


def check_free(spec: Spec, *, fence: str = "") -> None:
    """Refuse a network that this host already uses.

    Two clusters that come at the same time each make a fence, and look for that of another afterwards: at least one
    finds the other's.

    Args:
        fence: the cluster's own, which is there already.

    Raises:
        HostError: naming the interface or route that uses it.
    """
    hint = "choose another admin_network in servers.yml, or bring down what uses it (`swarmer ls`)"
    for link in _ip("address", "show"):
        for address in link["addr_info"]:
            if address["family"] == "inet":
                network = IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
                if network.overlaps(spec.admin_network):
                    raise HostError(
                        f"the network {spec.admin_network} is in use on this host: {link['ifname']} has {network}",
                        hint=hint,
                    )
    for route in _ip("route", "show"):
        network = IPv4Network("0.0.0.0/0" if route["dst"] == "default" else route["dst"])
        # A VPN for everything has two routes, each for half of all there is: no network would be free.
        own = f"{route['dst']} metric {route.get('metric')}" == fence
        if not own and network.prefixlen >= _OWN_USE and network.overlaps(spec.admin_network):
            through = route.get("dev", route.get("type", "a route"))
            raise HostError(
                f"the network {spec.admin_network} is in use on this host: {route['dst']} is routed ({through})",
                hint=hint,
            )


def reservation_name(home: ClusterHome, network: IPv4Network) -> str:
    """The route to nowhere of a cluster, in the words of `ip route`; no other cluster has the same."""
    return f"{network} metric {_LAST_METRICS + int(home.tag[:6], 16)}"


def reserve_subnet(route: str) -> None:
    """Let no packet for a node leave by the default route, also when the nodes are gone."""
    run(["ip", "route", "replace", "unreachable", *route.split()])


def release_subnet(route: str) -> None:
    """Take the fence away; the last thing a cluster does."""
    run(["ip", "route", "delete", "unreachable", *route.split()], check=False)


def _ip(*words: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(run(["ip", "-4", "-json", *words]).stdout or "[]")
    return answer
