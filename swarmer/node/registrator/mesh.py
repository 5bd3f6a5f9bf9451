"""On which ports this machine listens: docker listens on each port of the routing mesh that it forwards.

A manager knows all ports of the mesh by docker's list of services, but docker forwards none if the kernel lacks IPVS.

Sources: proc_pid_net(5); `programIngress` in docker's `libnetwork/service_linux.go`; `net/sctp/proc.c` of the kernel.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from swarmer.node.registrator.wakeups import Lasting
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

_NET: Final = Path("/proc/net")

#: The kernel has it if IPVS is built in or loaded; docker loads the module when it needs it.
_IPVS: Final = _NET / "ip_vs"

#: The states of a listening TCP socket, and of a UDP socket that isn't connected.
_LISTENS: Final = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}

#: Seconds for which a port has to be closed until that is logged: docker opens it a moment after a task has started.
CLOSED: Final = scaled(10.0)


def open_ports() -> frozenset[str]:
    """The ports on which a program of this machine listens, on any address, such as `80/tcp`."""
    return frozenset(_open_ports())


def _open_ports() -> Iterator[str]:
    for table, listens in _LISTENS.items():
        for words in _rows(_NET / table):
            _, _, port = words[1].rpartition(":")
            if words[3] == listens:
                yield f"{int(port, 16)}/{table.removesuffix('6')}"
            elif listens == "0A":
                break  # the kernel lists listening sockets first, and there may be many others
    for words in _rows(_NET / "sctp/eps"):
        yield f"{words[5]}/sctp"


def _rows(table: Path) -> Iterator[list[str]]:
    """The lines of a table without its head; none if the kernel doesn't have it."""
    try:
        with table.open() as lines:
            next(lines, None)
            for line in lines:
                yield line.split()
    except FileNotFoundError:
        return


class ClosedPorts:
    """Logs, once, which ports of the mesh docker doesn't forward, and why."""

    def __init__(self) -> None:
        self._closed = Lasting(CLOSED)
        self._logged: set[str] = set()

    def look(self, closed: Collection[str]) -> None:
        """Take the closed ports of services that run, as of now."""
        lasting = self._closed.look(closed)
        self._log(sorted(lasting - self._logged))
        self._logged = lasting

    def _log(self, ports: Iterable[str]) -> None:
        why = "" if _IPVS.exists() else ": the routing mesh needs IPVS (module ip_vs), which this kernel lacks"
        for port in ports:
            logger.error("port %s of the swarm is not announced, because docker doesn't listen on it%s", port, why)
