"""Reaching nodes past proxies: they are on this host's own networks, where no proxy leads to."""

import os
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

import requests

#: The variables that name a proxy, in the spelling of curl; others use the upper case.
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


def session() -> requests.Session:
    """An HTTP session that ignores the environment: proxies, `.netrc`, and CAs other than the cluster's."""
    direct = requests.Session()
    direct.trust_env = False
    return direct


def uses_proxy(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether programs of this environment send requests to a proxy."""
    return any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES)


def no_proxy(*addresses: IPv4Address, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables with which programs reach some addresses directly, in addition to what they exclude already.

    Programs differ in which of the two spellings they read first, so both get the same value.
    """
    excluded = [entry.strip() for name in ("NO_PROXY", "no_proxy") for entry in environment.get(name, "").split(",")]
    value = ",".join(dict.fromkeys([*filter(None, excluded), *map(str, addresses)]))
    if "*" in excluded:
        value = "*"  # everything; some programs understand it only alone
    return {"NO_PROXY": value, "no_proxy": value}
