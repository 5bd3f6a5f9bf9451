"""The host's side of a cluster's network, common to all stacks on this machine."""

import json
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.spec import Spec
from swarmer.stacks.findings import Finding, Verdict, checked
from swarmer.state import ClusterHome

#: Routes to networks larger than a /8, the largest private network, count as default routes.
_LARGEST_PRIVATE = 8

#: The first metric of reservations. These are the highest metrics, so a reservation only applies once the cluster's own
#: link is gone.
_FIRST_METRIC = 0xFF000000


def check_free(spec: Spec, *, fence: str = "") -> None:
    """Refuse a network that this host already uses.

    Of two clusters that start at the same time, each first reserves its network and then calls this: at least one of
    them finds the other's reservation.

    Args:
        fence: the cluster's own reservation, which already exists.

    Raises:
        HostError: the network is in use; the message names the interface or route.
    """
    hint = "choose another admin_network in servers.yml, or remove the cluster that uses it (`swarmer ls`)"
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
        # A VPN for all traffic has two routes, each for half of all addresses: no network would be free.
        own = f"{route['dst']} metric {route.get('metric')}" == fence
        if not own and network.prefixlen >= _LARGEST_PRIVATE and network.overlaps(spec.admin_network):
            through = route.get("dev", route.get("type", "a route"))
            raise HostError(
                f"the network {spec.admin_network} is in use on this host: {route['dst']} is routed ({through})",
                hint=hint,
            )


def examine(spec: Spec, home: ClusterHome) -> Finding:
    """Whether the network of a cluster is free, or used by the cluster itself."""
    subject = f"network {spec.admin_network}"
    if home.ledger.exists():
        return Finding(subject, Verdict.OK, f"used by {home.name} itself")
    return checked(subject, partial(check_free, spec), "free")


def reservation_name(home: ClusterHome, network: IPv4Network) -> str:
    """The unreachable route that reserves a cluster's network, as arguments of `ip route`; unique to the cluster."""
    return f"{network} metric {_FIRST_METRIC + int(home.tag[:6], 16)}"


def reserve_subnet(route: str) -> None:
    """Add the reservation, so that packets to nodes never leave by the default route, even if the nodes are gone."""
    run(["ip", "route", "replace", "unreachable", *route.split()])


def release_subnet(route: str) -> None:
    """Remove the reservation; the last step of removing a cluster."""
    run(["ip", "route", "delete", "unreachable", *route.split()], check=False)


def _ip(*words: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(run(["ip", "-4", "-json", *words]).stdout or "[]")
    return answer
