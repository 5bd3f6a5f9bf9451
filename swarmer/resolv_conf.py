"""The host's `/etc/resolv.conf`: which servers it names, and lines of ours at its top that go again.

Written in place and never replaced by another file: it may be a symbolic link, or mounted into a container.
"""

import re
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

RESOLV_CONF: Final = Path("/etc/resolv.conf")
#: The real servers behind the stub of systemd-resolved.
BEHIND_THE_STUB: Final = Path("/run/systemd/resolve/resolv.conf")

_BLOCK: Final = r"# swarmer {domain}: .*\nnameserver ({address})\n# swarmer {domain}: end\n"
_ANY: Final = re.compile(_BLOCK.format(domain=r"(\S+)", address=r"\S+").replace(r"(\S+): end", r"\1: end"))


def block(domain: str, address: IPv4Address, undo: str) -> str:
    """Lines that name a server for one cluster's names, and say who put them there."""
    return (
        f"# swarmer {domain}: remove these three lines with `{undo}`\n"
        f"nameserver {address}\n# swarmer {domain}: end\n"
    )


def without(text: str, domain: str) -> str:
    """The file without the lines of that domain."""
    return re.sub(_BLOCK.format(domain=re.escape(domain), address=r"\S+"), "", text)


def forwarders(text: str) -> dict[str, IPv4Address]:
    """The servers in lines of ours, of whatever cluster, by domain."""
    return {found.group(1): IPv4Address(found.group(2)) for found in _ANY.finditer(text)}


def servers(text: str) -> list[IPv4Address]:
    """The IPv4 servers in lines that aren't ours, in their order."""
    found = []
    for line in _ANY.sub("", text).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and re.fullmatch(r"[0-9.]+", words[1]):
            found.append(IPv4Address(words[1]))
    return found


def reachable_from_nodes() -> list[IPv4Address]:
    """The servers that this host asks, without those that only it can reach."""
    for file in (BEHIND_THE_STUB, RESOLV_CONF):
        if file.exists() and (found := [ip for ip in servers(file.read_text()) if not ip.is_loopback]):
            return found
    return []
