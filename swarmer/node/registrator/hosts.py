"""The address of this host, for ports that are published on all of its addresses."""

import ipaddress
import logging
import socket
from concurrent.futures import ThreadPoolExecutor, TimeoutError

logger = logging.getLogger(__name__)

#: Seconds until a lookup of the host's name is given up.
LOOKUP_TIMEOUT = 2.0


def host_address(agent: str, hostname: str) -> str:
    """The address to announce: the consul agent's, or, when the agent is on another machine, the one of our name.

    Args:
        agent: the address that the consul agent advertises to its cluster.
        hostname: what to look up.
    """
    if is_local(agent):
        return agent
    for address in lookup(hostname):
        if is_local(address):
            return address
    logger.warning("%s is not an address of this machine, and %s resolves to none; pass one with -ip", agent, hostname)
    return agent


def is_local(address: str) -> bool:
    """Whether this machine has the address, and others can reach it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.is_loopback or parsed.is_unspecified:
        return False
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def lookup(hostname: str) -> list[str]:
    """The addresses of a name; none if it doesn't resolve in time."""
    pool = ThreadPoolExecutor(1)
    try:
        found = pool.submit(socket.getaddrinfo, hostname, None, type=socket.SOCK_DGRAM).result(LOOKUP_TIMEOUT)
    except (OSError, TimeoutError):
        return []
    finally:
        pool.shutdown(wait=False)
    return [str(entry[4][0]) for entry in found]
