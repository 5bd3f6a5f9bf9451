"""Resolving the names of a cluster on this host: dns up, dns down."""

from ipaddress import IPv4Address

import click

from swarmer import resolv_conf
from swarmer.cli.common import ClusterName, select_cluster, usage
from swarmer.cli.completion import complete_cluster, complete_first_cluster
from swarmer.host import dns as host_dns
from swarmer.host.dns import HostDns
from swarmer.spec import STACKS
from swarmer.state import ClusterHome


@click.group()
def dns() -> None:
    """Make this host resolve the names of a cluster, such as swarm-01.node.dev.nspawn.

    \b
      swarmer dns up nspawn:dev
      swarmer dns down nspawn:dev
    """


@dns.command()
@click.argument("words", nargs=-1, metavar="[STACK:DC | DOMAIN IP…]", shell_complete=complete_first_cluster)
def up(words: tuple[str, ...]) -> None:
    """Resolve a cluster's names on this host, until `down`, or until the cluster is removed.

    If systemd-resolved is running, it is configured; otherwise a dnsmasq is started and becomes the first
    nameserver in /etc/resolv.conf. All nodes are queried, so resolution works while some are down. Calling it
    again replaces the previous setup.

    For a cluster that isn't managed from this host, give its domain and the addresses of some of its nodes.

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
    _report_added(home, host_dns.add(home, servers))


@dns.command()
@click.argument("word", required=False, metavar="[STACK:DC | DOMAIN]", shell_complete=complete_cluster)
def down(word: str | None) -> None:
    """Undo `up`, for all clusters if none is named.

    \b
      swarmer dns down
      swarmer dns down nspawn:dev
      swarmer dns down dev.vagrant
    """
    homes = [_home(word)] if word else list(host_dns.resolved())
    undone = [made for home in homes if (made := host_dns.remove(home))]
    for made in undone:
        _report_removed(made)
    if not undone:
        what = host_dns.domain_of(homes[0]) if word else "the names of any cluster"
        click.echo(f"this host does not resolve {what}")


def _report_removed(made: HostDns) -> None:
    if made.by == "resolved":
        click.echo(f"removed {made.domain} from systemd-resolved")
    else:
        click.echo(f"stopped the dnsmasq for {made.domain} and removed its lines from /etc/resolv.conf")


def _home(word: str) -> ClusterHome:
    """The cluster named by `STACK:DC`, or by its domain `DC.STACK`."""
    dc, _, stack = word.rpartition(".")
    name = f"{stack}:{dc}" if stack in STACKS and ":" not in word else word
    return ClusterName().convert(name, None, click.get_current_context())


def _address(word: str) -> IPv4Address:
    try:
        return IPv4Address(word)
    except ValueError:
        usage(f"{word!r} is not an IPv4 address")


def _report_added(home: ClusterHome, made: HostDns) -> None:
    click.echo(f"this host resolves *.{made.domain}")
    nodes = ", ".join(made.servers)
    if made.by == "resolved":
        click.echo(f"  systemd-resolved queries {nodes} on the link {made.where}")
    else:
        others = ", ".join(map(str, resolv_conf.servers_of_host()))
        click.echo(f"  a dnsmasq on {made.where} queries {nodes}")
        if others:
            click.echo(f"  it forwards all other names to {others}")
        else:
            click.echo("  it resolves no others, because /etc/resolv.conf lists no server for them")
        click.echo("  three lines at the top of /etc/resolv.conf make that dnsmasq the first nameserver")
    click.echo(f"  to undo: swarmer dns down {home.name}")
