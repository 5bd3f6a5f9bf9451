"""Queries to one name server, without retries: its answer and how long it took."""

import time
from dataclasses import dataclass
from ipaddress import IPv4Address

import dns.exception
import dns.message
import dns.query
import dns.rcode

from swarmer.ports import DNS


@dataclass(frozen=True)
class Answer:
    """The answer of a name server.

    Attributes:
        code: `NOERROR`, `NXDOMAIN`, `REFUSED`, `SERVFAIL`, …; `SILENT` if it didn't answer.
        records: the data of the answers as text: addresses, or names that end in a dot.
        seconds: how long it took.
    """

    code: str
    records: tuple[str, ...]
    seconds: float


def ask(
    server: IPv4Address,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    port: int = DNS.number,
    timeout: float = 3,
) -> Answer:
    """Query `server` for `name` once, over UDP or TCP; gives up after `timeout` seconds, or slightly later."""
    query = dns.message.make_query(name, kind)
    start = time.monotonic()
    try:
        transport = dns.query.tcp if tcp else dns.query.udp
        reply = transport(query, str(server), port=port, timeout=timeout)
    except (dns.exception.DNSException, OSError, EOFError):
        return Answer("SILENT", (), time.monotonic() - start)
    records = tuple(str(record) for answer in reply.answer for record in answer)
    return Answer(dns.rcode.to_text(reply.rcode()), records, time.monotonic() - start)
