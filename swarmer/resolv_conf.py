"""The host's `/etc/resolv.conf`: the servers in it, and swarmer's own lines at its top.

The file is written in place, never replaced by another one: it may be a symbolic link, or mounted into a container.
Source: resolv.conf(5), and what the C library makes of lines that it doesn't describe.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from swarmer.files import take_lock

RESOLV_CONF: Final = Path("/etc/resolv.conf")
#: The upstream servers of systemd-resolved's stub, and those of the dnsmasq or the resolved that NetworkManager uses.
BEHIND_RESOLVED: Final = Path("/run/systemd/resolve/resolv.conf")
BEHIND_NETWORK_MANAGER: Final = Path("/run/NetworkManager/no-stub-resolv.conf")

_OURS: Final = re.compile(
    r"^# swarmer (?P<domain>\S+): begin.*\nnameserver (?P<address>\S+)\n# swarmer (?P=domain): end\n", re.MULTILINE
)


@contextmanager
def locked() -> Iterator[None]:
    """Keep other processes and threads of swarmer from changing the file for the time of the block.

    The lock is on the folder, which exists also while the file doesn't, and is the same for every `SWARMER_HOME`.
    It can't be taken twice.
    """
    descriptor = os.open(RESOLV_CONF.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        take_lock(descriptor, f"another process that changes {RESOLV_CONF}")
        yield
    finally:
        os.close(descriptor)


def read(file: Path | None = None) -> str:
    """The content of a file like that, of the host's by default; empty if it doesn't exist.

    Bytes that aren't UTF-8, in comments, are kept for `write`.
    """
    try:
        return (file or RESOLV_CONF).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def write(text: str) -> None:
    """Replace the content of the host's file."""
    RESOLV_CONF.write_text(text, encoding="utf-8", errors="surrogateescape")


def with_server(text: str, domain: str, address: IPv4Address, *, undo: str) -> str:
    """The content with a server for the domain of one cluster at its top.

    Args:
        undo: the command that removes the lines; it is named in them.
    """
    lines = f"# swarmer {domain}: begin; `{undo}` takes this out\nnameserver {address}\n# swarmer {domain}: end\n"
    return lines + without_server(text, domain, address)


def without_server(text: str, domain: str, address: IPv4Address) -> str:
    """The content without swarmer's lines for that cluster; everything else is unchanged.

    Lines with another address belong to a cluster of the same name in another `SWARMER_HOME`.
    """
    ours = (domain, str(address))
    return _OURS.sub(lambda found: "" if found.group("domain", "address") == ours else found[0], text)


def our_servers(text: str) -> dict[str, IPv4Address]:
    """Domain to server, from swarmer's own lines; of two servers for one domain, the upper one."""
    return {found["domain"]: IPv4Address(found["address"]) for found in reversed(list(_OURS.finditer(text)))}


def other_servers(text: str) -> list[IPv4Address | IPv6Address]:
    """The servers in all other lines, in order. As for the C library, what follows an address is a comment."""
    found = []
    for word in re.findall(r"^nameserver[ \t]+(\S+)", _OURS.sub("", text), re.MULTILINE):
        with suppress(ValueError):
            found.append(ip_address(word))
    return found


def servers_of_host() -> list[IPv4Address | IPv6Address]:
    """The servers in the host's file, without swarmer's own."""
    return other_servers(read())


def reachable_from_nodes() -> list[IPv4Address]:
    """The DNS servers of this host to which nodes have a route: IPv4 addresses that aren't on its loopback."""
    for file in (BEHIND_RESOLVED, RESOLV_CONF, BEHIND_NETWORK_MANAGER):
        servers = other_servers(read(file))
        if found := [ip for ip in servers if isinstance(ip, IPv4Address) and not ip.is_loopback and int(ip)]:
            return found
    return []
