"""The names of a cluster on this host: dns up, dns down."""

from ipaddress import IPv4Address

import click

from swarmer.cli.common import ClusterName, select_cluster, usage
from swarmer.host import dns as host_dns
from swarmer.host.dns import HostDns
from swarmer.spec import STACKS
from swarmer.state import ClusterHome


@click.group()
def dns() -> None:
    """Let this host resolve the names of a cluster, such as swarm-01.node.dev.nspawn.

    \b
      swarmer dns up nspawn:dev
      swarmer dns down nspawn:dev
    """


@dns.command()
@click.argument("words", nargs=-1, metavar="[STACK:DC | DOMAIN IP…]")
def up(words: tuple[str, ...]) -> None:
    """Resolve a cluster's names on this host, until `down`, or until the cluster is removed.

    Where systemd-resolved runs, it is told so; elsewhere a dnsmasq is started, which /etc/resolv.conf then names
    first. All nodes are asked, so it works with any of them down. Called again, it begins anew.

    A cluster that somebody else runs is named by its domain and the addresses of some of its nodes.

    \b
      swarmer dns up nspawn:dev
      swarmer dns up dev.vagrant 192.168.101.101
    """
    if len(words) > 1:
        home = _home(words[0])
        servers = [_address(word) for word in words[1:]]
    else:
        cluster = select_cluster(_home(words[0]) if words else None)
        home = cluster.home
        servers = [node.ip for node in cluster.nodes]
    _tell(home, host_dns.add(home, servers))


@dns.command()
@click.argument("word", required=False, metavar="[STACK:DC | DOMAIN]")
def down(word: str | None) -> None:
    """Undo what `up` did; for all clusters when none is named.

    \b
      swarmer dns down
      swarmer dns down nspawn:dev
      swarmer dns down dev.vagrant
    """
    homes = [_home(word)] if word else list(host_dns.resolved())
    undone = [made for home in homes if (made := host_dns.remove(home))]
    for made in undone:
        _tell_end(made)
    if not undone:
        click.echo(f"this host does not resolve {host_dns.domain_of(homes[0]) if word else 'any cluster'}")


def _tell_end(made: HostDns) -> None:
    if made.by == "resolved":
        click.echo(f"systemd-resolved knows nothing of {made.domain} any more")
    else:
        click.echo(f"the dnsmasq for {made.domain} has ended, and its lines are gone from /etc/resolv.conf")


def _home(word: str) -> ClusterHome:
    """The cluster that `STACK:DC`, or its domain `DC.STACK`, names."""
    dc, _, stack = word.rpartition(".")
    name = f"{stack}:{dc}" if stack in STACKS and ":" not in word else word
    return ClusterName().convert(name, None, click.get_current_context())


def _address(word: str) -> IPv4Address:
    try:
        return IPv4Address(word)
    except ValueError:
        usage(f"{word!r} is no IPv4 address of a node")


def _tell(home: ClusterHome, made: HostDns) -> None:
    click.echo(f"this host resolves *.{made.domain}")
    asked = ", ".join(made.servers)
    if made.by == "resolved":
        click.echo(f"  systemd-resolved asks {asked} on the link {made.where}")
    else:
        click.echo(f"  a dnsmasq on {made.where} asks {asked}; it forwards all other names to the servers as before")
        click.echo("  /etc/resolv.conf names that dnsmasq first, in three lines at its top")
    click.echo(f"  undo it: swarmer dns down {home.name}")
