"""Whole clusters: up, ls, status, down, gc."""

from dataclasses import asdict
from datetime import UTC, datetime

import click

from swarmer import lifecycle, removal
from swarmer.cli.common import (
    cluster_argument,
    json_option,
    print_json,
    print_table,
    select_cluster,
    single,
    size_text,
    spec_options,
    spinner,
)
from swarmer.cluster_status import listing, look
from swarmer.ledger import Ledger
from swarmer.progress import progress
from swarmer.secrets.issuer import RENEW_BEFORE
from swarmer.spec import Spec
from swarmer.spec.rules import advice
from swarmer.state import ClusterHome, cluster_homes, remembered_homes


@click.command()
@spec_options
def up(spec: Spec) -> None:
    """Boot a cluster and leave it running.

    Waits until the cluster has converged. If it is already running and healthy, nothing is done. If booting fails
    or is interrupted, everything created so far is removed.

    \b
      swarmer up
      swarmer up --servers staging.yml
      swarmer up --size 1
    """
    home = ClusterHome(spec.stack, spec.dc)
    from swarmer.terminal import Console

    terminal = Console(stderr=True)
    try:
        with progress(terminal) as shown:
            owned = lifecycle.provide(spec, shown, reuse=True)
            owned.keep()
    except BaseException:
        if home.ledger.exists() and not Ledger.load(home).kept:
            click.echo("`swarmer gc` removes what is left", err=True)
        raise
    cluster = owned.cluster
    # On a terminal, progress is redrawn in place, and the notes would have scrolled away.
    for note in [*cluster.notes, *advice(spec.servers)] if terminal.is_terminal and cluster.phases else ():
        click.echo(f"note: {note}", err=True)
    outcome = f"converged after {cluster.phases['converged']:.1f} s" if cluster.phases else "is already healthy"
    click.echo(f"{spec.name} {outcome}")
    click.echo(f"  show its state     swarmer status {spec.name}")
    click.echo(f"  log in             swarmer ssh {spec.name} {spec.servers[0].name}")
    click.echo(f"  run the scenarios  pytest scenarios --keep-cluster{_given_options()}")
    click.echo(f"  remove it          swarmer down {spec.name}")


def _given_options() -> str:
    """The options given to this command, for another command on the same cluster."""
    context = click.get_current_context()
    given = click.core.ParameterSource.COMMANDLINE
    return "".join(
        f" --{name}={value}" for name, value in context.params.items() if context.get_parameter_source(name) is given
    )


@click.command()
@json_option
def ls(as_json: bool) -> None:
    """List the clusters of this machine.

    STATE is `running` (owned by a live process), `kept`, `broken` (by a scenario), `dead owner` (`swarmer gc`
    removes it) or `unreadable`.

    \b
      swarmer ls
      swarmer ls --json | jq -r '.[].cluster'

    With --json, a list of: cluster, state, nodes (names), running (number of nodes switched on), admin_network,
    image, owner_pid (null if no process owns it), problem.
    """
    rows = list(listing())
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        click.echo("there are no clusters; `swarmer up` boots one")
        return
    print_table(
        ("CLUSTER", "NODES", "STATE", "NETWORK", "IMAGE", "OWNER", ""),
        [
            (
                row.cluster,
                f"{row.running}/{len(row.nodes)}",
                row.state,
                row.admin_network,
                row.image,
                "-" if row.owner_pid is None else str(row.owner_pid),
                row.problem,
            )
            for row in rows
        ],
    )


@click.command()
@cluster_argument
@json_option
@click.pass_context
def status(context: click.Context, home: ClusterHome | None, as_json: bool) -> None:
    """Show the state of a cluster and its nodes.

    The exit status is 1 unless the cluster is healthy. CONSUL is `leader`, `voter`, `agent`, or `server` for a
    server that has no vote at the moment; MEMBER is the node's state in consul's gossip.

    \b
      swarmer status
      swarmer status nspawn:dev --json | jq .healthy

    With --json: cluster, state (see `swarmer ls --help`), image, owner_pid, healthy (it has converged), problem
    (what is missing), certificates_end (when the last of them expires), and nodes: name, ip, consul and swarm (the
    roles), running, cloud_init (running, done, failed), member (alive, leaving, left, failed), leader, voter,
    memory_bytes. Unknown values are null.
    """
    cluster = select_cluster(home)
    with spinner(f"looking at {cluster.name}"):
        seen = look(cluster)
    if as_json:
        print_json(asdict(seen))
    else:
        print_table(
            ("NODE", "IP", "CONSUL", "SWARM", "POWER", "CLOUD-INIT", "MEMBER", "MEMORY"),
            [
                (
                    node.name,
                    node.ip,
                    "leader" if node.leader else "voter" if node.voter else node.consul,
                    node.swarm,
                    "on" if node.running else "off",
                    node.cloud_init or "-",
                    node.member or "-",
                    size_text(node.memory_bytes),
                )
                for node in seen.nodes
            ],
        )
        click.echo(f"{seen.cluster} ({seen.state}): {'has converged' if seen.healthy else seen.problem}")
        _warn_of_end(seen.certificates_end, cluster.home)
    context.exit(0 if seen.healthy else 1)


def _warn_of_end(certificates_end: str | None, home: ClusterHome) -> None:
    if certificates_end and datetime.fromisoformat(certificates_end) < datetime.now(UTC) + RENEW_BEFORE:
        click.echo(f"certificates expire on {certificates_end[:10]}. To renew, boot the cluster again with a new CA:")
        click.echo(f"  `swarmer down {home.name} --forget`, then `swarmer up`")


@click.command()
@click.option("--forget", is_flag=True, help="Also remove its CA, its client certificates and the rest of its folder.")
@cluster_argument
def down(home: ClusterHome | None, forget: bool) -> None:
    """Remove a cluster and everything it owns.

    Its CA and client certificates are kept for the next cluster of that name. With --forget they are removed too,
    also when the cluster isn't running; the next one gets a new CA.

    \b
      swarmer down
      swarmer down nspawn:dev
      swarmer down nspawn:dev --forget
    """
    known = remembered_homes() if forget else cluster_homes()
    homes = [each for each in known if home in (None, each)]
    if not homes:
        click.echo(f"there is no cluster{f' {home.name}' if home else ''}; nothing to remove")
        return
    home = single(homes)
    spec = Ledger.load(home).spec if home.ledger.exists() else None
    with spinner(f"removing {home.name}"):
        removal.down(home, forget=forget)
    if spec:
        click.echo(f"removed {home.name}: {', '.join(server.name for server in spec.servers)}, {spec.admin_network}")
    if forget:
        click.echo(f"removed {home.folder}, with its CA; where you imported ca.pem yourself, remove it yourself")


@click.command()
@click.pass_context
def gc(context: click.Context) -> None:
    """Remove what dead runs left behind.

    Kept clusters, and clusters owned by a live process, are not touched.

    \b
      swarmer gc
    """
    with spinner("removing what dead runs left behind"):
        collected = removal.collect_garbage()
    for one in collected:
        click.echo(f"error: {one}" if one.problem else one, err=bool(one.problem))
    if not collected:
        click.echo("nothing to remove")
    context.exit(1 if any(one.problem for one in collected) else 0)
