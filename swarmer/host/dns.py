"""Making this host resolve the names of a cluster, and undoing it.

On hosts with systemd-resolved, the nodes become the servers of the link towards them, for the cluster's domain only.
They neither sign their answers nor encrypt them, so DNSSEC and DNS over TLS are switched off for that link.
On other hosts, and where that link also carries the default route, a dnsmasq is started on a loopback address of its
own. It forwards queries for the cluster's domain to the nodes and all others to the servers of `/etc/resolv.conf`,
in which it becomes the first server.

Every change is recorded in `dns.json` in the cluster's folder before it is made. `remove` thus undoes it whenever a
process dies in between; the removal of a cluster does the same.

Sources: resolvectl(1) `dns`, `domain`, `dnssec`, `dnsovertls`, `revert`; the manual of dnsmasq; resolv.conf(5).
"""

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Literal

from swarmer import resolv_conf
from swarmer.errors import HostError, as_root, needs_root
from swarmer.files import write_private
from swarmer.shell import run, which
from swarmer.state import ClusterHome, swarmer_home
from swarmer.wait import until_true

_RECORD: Final = "dns.json"
_NSSWITCH: Final = Path("/etc/nsswitch.conf")
_BY_MODULE: Final = re.compile(r"^hosts:.*\bresolve\b", re.MULTILINE)

#: The message of dnsmasq for a port that is in use.
_TAKEN: Final = "Address already in use"


@dataclass(frozen=True)
class HostDns:
    """What was changed on this host for one cluster.

    Attributes:
        domain: the domain of the cluster, `DC.STACK`.
        servers: the addresses of the nodes, which resolve the domain.
        by: `resolved` or `dnsmasq`.
        where: the link configured in systemd-resolved, or the loopback address of the dnsmasq.
    """

    domain: str
    servers: tuple[str, ...]
    by: Literal["resolved", "dnsmasq"]
    where: str


def domain_of(home: ClusterHome) -> str:
    """`DC.STACK`."""
    return f"{home.dc}.{home.stack}"


def add(home: ClusterHome, servers: Sequence[IPv4Address]) -> HostDns:
    """Make this host resolve the names of a cluster by `servers`; replaces what an earlier call did.

    Raises:
        HostError: this machine lacks a resolver or this user the rights; nothing is left changed.
    """
    remove(home)
    asked = tuple(map(str, servers))
    link = _link_to(servers[0])
    if _resolved_runs() and link not in _links_outside():
        made = HostDns(domain_of(home), asked, "resolved", link)
    else:
        _check_dnsmasq()
        made = HostDns(domain_of(home), asked, "dnsmasq", str(_loopback(home)))
    home.make()
    write_private(_record(home), json.dumps(asdict(made), indent=1) + "\n")
    try:
        if made.by == "resolved":
            run(["resolvectl", "dnssec", made.where, "no"])
            run(["resolvectl", "dnsovertls", made.where, "no"])
            run(["resolvectl", "dns", made.where, *made.servers])
            run(["resolvectl", "domain", made.where, f"~{made.domain}"])
        else:
            # The new dnsmasq forwards to those that the file names now: no other change may come between.
            with resolv_conf.locked():
                _start_dnsmasq(home, made)
                text = resolv_conf.read()
                undo = f"swarmer dns down {home.name}"
                resolv_conf.write(resolv_conf.with_server(text, made.domain, IPv4Address(made.where), undo=undo))
    except BaseException:
        remove(home)
        raise
    return made


def remove(home: ClusterHome) -> HostDns | None:
    """Undo what `add` did, also when it was interrupted.

    Returns:
        What was undone; None if there was nothing to undo.

    Raises:
        HostError: this user lacks the rights.
    """
    record = _record(home)
    if not record.exists():
        return None
    try:
        data = json.loads(record.read_text())
        made = HostDns(data["domain"], tuple(data["servers"]), data["by"], data["where"])
        if made.by == "resolved":
            # Fails if the link is gone, and its configuration with it.
            run(["resolvectl", "revert", made.where], check=False)
        else:
            with resolv_conf.locked():
                _restore_resolv_conf(made)
            _stop_dnsmasq(home)
        _config(home).unlink(missing_ok=True)
        record.unlink()
    except PermissionError as error:
        raise HostError(
            f"removing {domain_of(home)} from the DNS of this host needs root: {error.filename or error}",
            hint=f"{as_root(f'dns down {home.name}')}, then try again",
        ) from error
    return made


def resolved() -> Iterator[ClusterHome]:
    """The clusters whose names this host was made to resolve."""
    for record in sorted(swarmer_home().glob(f"*/*/{_RECORD}")):
        yield ClusterHome(record.parent.parent.name, record.parent.name)


def _record(home: ClusterHome) -> Path:
    return home.folder / _RECORD


def _config(home: ClusterHome) -> Path:
    return home.folder / "dnsmasq.conf"


# -- systemd-resolved ------------------------------------------------------------------------------------------


def _resolved_runs() -> bool:
    """Whether systemd-resolved runs and the C library uses it: by nss-resolve, or by the stub in resolv.conf."""
    if not which("resolvectl") or run(["resolvectl", "dns"], check=False).returncode:
        return False
    switch = _NSSWITCH.read_text() if _NSSWITCH.exists() else ""
    stubs = {IPv4Address("127.0.0.53"), IPv4Address("127.0.0.54")}
    return bool(_BY_MODULE.search(switch)) or bool(stubs & set(resolv_conf.servers_of_host()))


def _link_to(server: IPv4Address) -> str:
    """The link by which this host reaches the nodes."""
    routes = json.loads(run(["ip", "-json", "route", "get", str(server)]).stdout)
    link: str = routes[0]["dev"]
    return link


def _links_outside() -> set[str]:
    """The links with a default route. The servers of these resolve all other names, and must not be replaced."""
    routes = json.loads(run(["ip", "-json", "route", "show", "default"]).stdout or "[]")
    # A multipath or blackhole route has no link of its own.
    return {hop["dev"] for route in routes for hop in (route, *route.get("nexthops", ())) if "dev" in hop}


# -- dnsmasq ---------------------------------------------------------------------------------------------------


def _check_dnsmasq() -> None:
    if os.uname().sysname != "Linux":
        raise HostError(
            "this machine has no systemd-resolved, and only 127.0.0.1 of 127.0.0.0/8",
            hint="create /etc/resolver/DOMAIN with one `nameserver` line per node",
        )
    if not which("dnsmasq"):
        raise HostError(
            "this machine has neither systemd-resolved nor dnsmasq",
            hint="install dnsmasq, on Debian and Ubuntu by `apt-get install dnsmasq-base`",
        )
    if os.geteuid() != 0:
        raise needs_root("changing DNS (port 53, /etc/resolv.conf)", "dns up …")


def _loopback(home: ClusterHome) -> IPv4Address:
    """An address for the dnsmasq of this cluster alone, and not 127.0.0.1, where the host may run a resolver."""
    first, second = hashlib.sha256(str(home.folder).encode()).digest()[:2]
    return IPv4Address(f"127.83.{first}.{1 + second % 254}")


def _start_dnsmasq(home: ClusterHome, made: HostDns) -> None:
    """Start dnsmasq in the background; when this returns, its port is bound."""
    text = resolv_conf.read()
    lines = [
        f"# Resolves {made.domain} for this host; `swarmer dns down {home.name}` ends it.",
        f"listen-address={made.where}",
        "bind-interfaces",
        "user=nobody",
        "pid-file=",
        "no-hosts",
        "no-resolv",
        "cache-size=0",
        "no-negcache",
        "all-servers",
        *(f"server=/{made.domain}/{server}" for server in made.servers),
        # The other clusters that this host resolves, each by its own dnsmasq.
        *(f"server=/{domain}/{ip}" for domain, ip in resolv_conf.our_servers(text).items() if domain != made.domain),
        *(f"server={ip}" for ip in resolv_conf.other_servers(text)),
    ]
    write_private(_config(home), "\n".join(lines) + "\n")
    dnsmasq = which("dnsmasq")
    assert dnsmasq
    try:
        run([dnsmasq, f"--conf-file={_config(home)}"])
    except HostError as error:
        if _TAKEN not in str(error):
            raise
        raise HostError(
            f"another program listens on port 53 of {made.where}, or of all addresses of this host",
            hint=f"`ss -lnptu 'sport = :53'` shows it; let it listen on certain addresses only (dnsmasq: "
            f"`bind-interfaces`), or forward {made.domain} to the nodes itself",
        ) from error


def _stop_dnsmasq(home: ClusterHome) -> None:
    for process in _processes(home):
        os.kill(process, signal.SIGTERM)
    until_true(f"the dnsmasq of {home.name} to end", lambda: not list(_processes(home)), timeout=5, interval=0.02)


def _processes(home: ClusterHome) -> Iterator[int]:
    """Every dnsmasq of this cluster. It is found by its command line, which it has from its start."""
    option = f"--conf-file={_config(home)}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if option in (folder / "cmdline").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:
            continue


def _restore_resolv_conf(made: HostDns) -> None:
    text = resolv_conf.read()
    rest = resolv_conf.without_server(text, made.domain, IPv4Address(made.where))
    if rest == text:
        return
    if rest or resolv_conf.RESOLV_CONF.is_symlink():
        resolv_conf.write(rest)
    else:  # the file did not exist before
        resolv_conf.RESOLV_CONF.unlink()
