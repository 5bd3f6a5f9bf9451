"""Making this host resolve the names of a cluster, and undoing it.

Where systemd-resolved resolves for the programs of this host, it is told that the link towards the nodes leads to
servers for the cluster's domain. Elsewhere, and where that link is the one to the world, a dnsmasq on a loopback
address of its own asks the nodes for that domain, and the servers of `/etc/resolv.conf` for everything else; that file
names it first.

What is about to be changed is written to `dns.json` in the cluster's folder before it is changed. So whatever dies
in between, and whenever, `remove` undoes it; the removal of a cluster does so too.

Sources: resolvectl(1) `dns`, `domain`, `revert`; the manual of dnsmasq; resolv.conf(5).
"""

import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Literal

from swarmer import resolv_conf
from swarmer.errors import HostError
from swarmer.files import write_private
from swarmer.shell import run
from swarmer.state import ClusterHome, swarmer_home
from swarmer.wait import until_true

_RECORD: Final = "dns.json"
_NSSWITCH: Final = Path("/etc/nsswitch.conf")
_BY_MODULE: Final = re.compile(r"^hosts:.*\bresolve\b", re.MULTILINE)
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class HostDns:
    """What was changed on this host for one cluster.

    Attributes:
        domain: whose names the host resolves.
        servers: the addresses that are asked.
        by: `resolved` or `dnsmasq`.
        where: the link that systemd-resolved was told of, or the loopback address of the dnsmasq.
    """

    domain: str
    servers: tuple[str, ...]
    by: Literal["resolved", "dnsmasq"]
    where: str


def domain_of(home: ClusterHome) -> str:
    """`DC.STACK`."""
    return f"{home.dc}.{home.stack}"


def add(home: ClusterHome, servers: Sequence[IPv4Address]) -> HostDns:
    """Make this host ask `servers` for the names of a cluster. What an earlier call made is replaced.

    Raises:
        HostError: this machine can't, with the way out; nothing is left changed.
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
            run(["resolvectl", "dns", made.where, *made.servers])
            run(["resolvectl", "domain", made.where, f"~{made.domain}"])
        else:
            # The dnsmasq asks those of the clusters that the file names by now: nothing may come between.
            with resolv_conf.locked():
                _start_dnsmasq(home, made)
                text = _read_resolv_conf()
                undo = f"swarmer dns down {home.name}"
                resolv_conf.RESOLV_CONF.write_text(
                    resolv_conf.with_server(text, made.domain, IPv4Address(made.where), undo=undo)
                )
    except BaseException:
        remove(home)
        raise
    return made


def remove(home: ClusterHome) -> HostDns | None:
    """Undo what `add` did, as far as it did it; tells what that was, None when there is nothing to undo.

    Raises:
        HostError: this user may not.
    """
    record = _record(home)
    if not record.exists():
        return None
    try:
        data = json.loads(record.read_text())
        made = HostDns(data["domain"], tuple(data["servers"]), data["by"], data["where"])
        if made.by == "resolved":
            # Goes with the link, where the link went first.
            run(["resolvectl", "revert", made.where], check=False)
        else:
            with resolv_conf.locked():
                _restore_resolv_conf(made)
            _stop_dnsmasq(home)
        _config(home).unlink(missing_ok=True)
        record.unlink()
    except PermissionError as error:
        raise HostError(
            f"root made this host resolve {domain_of(home)}, and only root can undo it: {error.filename or error}",
            hint=f"`bin/as-root .venv/bin/swarmer dns down {home.name}`, then try again",
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
    """Whether it is there, and the C library asks it: by its module, or by the stub that resolv.conf names."""
    if not shutil.which("resolvectl") or run(["resolvectl", "dns"], check=False).returncode:
        return False
    switch = _NSSWITCH.read_text() if _NSSWITCH.exists() else ""
    stubs = {IPv4Address("127.0.0.53"), IPv4Address("127.0.0.54")}
    return bool(_BY_MODULE.search(switch)) or bool(stubs & set(resolv_conf.other_servers(_read_resolv_conf())))


def _link_to(server: IPv4Address) -> str:
    """The link by which this host reaches the nodes."""
    routes = json.loads(run(["ip", "-json", "route", "get", str(server)]).stdout)
    link: str = routes[0]["dev"]
    return link


def _links_outside() -> set[str]:
    """The links with a default route. Their servers are those of all other names; ours would take their place."""
    routes = json.loads(run(["ip", "-json", "route", "show", "default"]).stdout or "[]")
    # One with several ways, or to nowhere, has no link of its own.
    return {hop["dev"] for route in routes for hop in (route, *route.get("nexthops", ())) if "dev" in hop}


# -- dnsmasq ---------------------------------------------------------------------------------------------------


def _check_dnsmasq() -> None:
    if os.uname().sysname != "Linux":
        raise HostError(
            "this machine has no systemd-resolved, and 127.0.0.0/8 is no loopback network here",
            hint="name the nodes in a file of /etc/resolver/ that is called like the domain",
        )
    if not shutil.which("dnsmasq", path=_PATH):
        raise HostError(
            "this machine has neither systemd-resolved nor dnsmasq",
            hint="`apt-get install dnsmasq-base`, or what your system calls it",
        )
    if os.geteuid() != 0:
        raise HostError("port 53 and /etc/resolv.conf are root's", hint="put `bin/as-root` before the same command")


def _loopback(home: ClusterHome) -> IPv4Address:
    """An address that no other cluster has, nor a resolver that this host may run on 127.0.0.1."""
    first, second = hashlib.sha256(str(home.folder).encode()).digest()[:2]
    return IPv4Address(f"127.83.{first}.{1 + second % 254}")


def _start_dnsmasq(home: ClusterHome, made: HostDns) -> None:
    """Start it detached; it has bound its port when this returns."""
    text = _read_resolv_conf()
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
        # Other clusters that this host resolves, each by its own dnsmasq.
        *(f"server=/{domain}/{ip}" for domain, ip in resolv_conf.our_servers(text).items() if domain != made.domain),
        *(f"server={ip}" for ip in resolv_conf.other_servers(text)),
    ]
    write_private(_config(home), "\n".join(lines) + "\n")
    dnsmasq = shutil.which("dnsmasq", path=_PATH)
    assert dnsmasq
    run([dnsmasq, f"--conf-file={_config(home)}"])


def _stop_dnsmasq(home: ClusterHome) -> None:
    for process in _processes(home):
        os.kill(process, signal.SIGTERM)
    until_true(f"the dnsmasq of {home.name} to end", lambda: not list(_processes(home)), timeout=5, interval=0.02)


def _processes(home: ClusterHome) -> Iterator[int]:
    """Every dnsmasq of this cluster, by its command line: there is no moment at which it isn't found."""
    option = f"--conf-file={_config(home)}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if option in (folder / "cmdline").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:
            continue


def _read_resolv_conf() -> str:
    try:
        return resolv_conf.RESOLV_CONF.read_text()
    except FileNotFoundError:
        return ""


def _restore_resolv_conf(made: HostDns) -> None:
    text = _read_resolv_conf()
    rest = resolv_conf.without_server(text, made.domain, IPv4Address(made.where))
    if rest == text:
        return
    if rest or resolv_conf.RESOLV_CONF.is_symlink():
        resolv_conf.RESOLV_CONF.write_text(rest)
    else:  # There was none.
        resolv_conf.RESOLV_CONF.unlink()
