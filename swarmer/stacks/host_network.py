"""The host's side of a cluster's network, the same for every stack on this machine."""

import json
from ipaddress import IPv4Network
from typing import Any

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.spec import Spec

#: The worst metric there is: the route only counts when the cluster's own link is gone.
LAST_METRIC = "4294967295"


def check_free(spec: Spec) -> None:
    """Refuse a network that this host already uses.

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
        if route["dst"] != "default" and IPv4Network(route["dst"]).overlaps(spec.admin_network):
            through = route.get("dev", route.get("type", "a route"))
            raise HostError(
                f"the network {spec.admin_network} is in use on this host: {route['dst']} is routed ({through})",
                hint=hint,
            )


def fence(network: IPv4Network) -> None:
    """Let no packet for a node leave by the default route, also when the nodes are gone."""
    run(["ip", "route", "replace", "unreachable", str(network), "metric", LAST_METRIC])


def unfence(network: IPv4Network) -> None:
    """Take the fence away; the last thing a cluster does."""
    run(["ip", "route", "delete", "unreachable", str(network), "metric", LAST_METRIC], check=False)


def _ip(*words: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(run(["ip", "-4", "-json", *words]).stdout or "[]")
    return answer
