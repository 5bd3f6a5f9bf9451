"""The private registry: registry gc, registry password, and trust for this host."""

from dataclasses import asdict

import click

from swarmer.cli.common import (
    cluster_argument,
    json_option,
    print_json,
    print_table,
    select_cluster,
    size_text,
    spinner,
)
from swarmer.commands import registry_gc
from swarmer.errors import NodeError, SwarmerError
from swarmer.host import trust as host_trust
from swarmer.host.trust import HostTrust
from swarmer.node.registry.garbage_collection import GRACE
from swarmer.secrets.credentials import REGISTRY_PASSWORD
from swarmer.state import ClusterHome


@click.group()
def registry() -> None:
    """Manage the cluster's private registry.

    \b
      swarmer registry gc nspawn:dev
      swarmer registry password nspawn:dev | docker login --username swarmer --password-stdin \\
        registry.service.dev.nspawn:5000
    """


@registry.command()
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=GRACE,
    show_default=True,
    metavar="SECONDS",
    help="Keep content newer than this; must exceed the duration of the longest push in progress.",
)
@click.option(
    "--untagged",
    is_flag=True,
    help="First remove the images that have had no tag for that long, unless a tagged one needs or is their subject.",
)
@cluster_argument
@json_option
def gc(home: ClusterHome | None, grace: float, untagged: bool, as_json: bool) -> None:
    """Remove content that no image refers to any more from the disks.

    Pushes and pulls may continue meanwhile. A table shows what was freed on each node.

    An image that lost its tag to a later push still exists, and is pulled by its digest: so do swarm services. With
    --untagged, such images are removed. What an index with a tag lists is kept, and what refers to a kept image, such
    as its signature.

    \b
      swarmer registry gc nspawn:dev
      swarmer registry gc nspawn:dev --untagged --grace 86400

    With --json, a list of: node, blobs, uploads, bytes, kept, problem.
    """
    cluster = select_cluster(home)
    if cluster.spec.registry.storage == "s3":
        raise SwarmerError(
            f"the content of {cluster.name} is in the bucket {cluster.spec.registry.bucket}, not on the nodes",
            hint="stop pushes, then run docker-registry's own collection on one node; see docs/registry.md",
        )
    if untagged:
        with spinner("removing images without a tag"):
            removed = registry_gc.remove_untagged(cluster, grace=grace)
        click.echo(f"images removed that had no tag: {removed}", err=as_json)
    with spinner("collecting garbage on all registry nodes"):
        freed = registry_gc.collect(cluster.registry_nodes, grace=grace)
    if as_json:
        print_json([asdict(each) for each in freed])
    else:
        rows = [
            (each.node, str(each.blobs), str(each.uploads), size_text(each.bytes), str(each.kept), each.problem or "-")
            for each in freed
        ]
        print_table(("NODE", "BLOBS FREED", "UPLOADS FREED", "SIZE", "BLOBS KEPT", "PROBLEM"), rows)
    if failed := [f"{each.node} {each.problem}" for each in freed if each.problem]:
        raise NodeError(f"not collected: {'; '.join(failed)}", hint="run it again once these nodes are healthy")


@registry.command()
@cluster_argument
def password(home: ClusterHome | None) -> None:
    """Print the password of the user `swarmer`, which may push.

    \b
      swarmer registry password nspawn:dev
    """
    click.echo(select_cluster(home).credentials.tokens[REGISTRY_PASSWORD])


@click.command()
@click.option("--undo", is_flag=True, help="Remove the trust again.")
@cluster_argument
def trust(home: ClusterHome | None, undo: bool) -> None:
    """Make this host's docker and system trust a cluster's certificates.

    docker receives the CA for the registry, and a client certificate that allows pushing. `swarmer down` removes the
    trust as well. The CA is valid for the cluster's own names and addresses only; the command prints them.

    \b
      swarmer trust nspawn:dev
      docker push registry.service.dev.nspawn:5000/app
      swarmer trust nspawn:dev --undo
    """
    if undo:
        homes = [home] if home else list(host_trust.trusted())
        undone = [made for each in homes if (made := host_trust.remove(each))]
        for made in undone:
            _report("removed", made)
        if not undone:
            click.echo(f"this host does not trust {home.name if home else 'any cluster'}")
        return
    cluster = select_cluster(home)
    made = host_trust.add(cluster.home, cluster.authority, cluster.spec.registry_host)
    _report("wrote", made)
    if made.command:
        key = cluster.home.folder / "ca-key.pem"
        click.echo(f"note: anyone who can read {key} can impersonate to this host: {cluster.authority.scope};")
        click.echo("  to Java programs that use its trust store, any name: they ignore the limits of a trusted root")
    click.echo(f"  to undo: swarmer trust {cluster.name} --undo")


def _report(verb: str, made: HostTrust) -> None:
    for file in made.files:
        click.echo(f"{verb} {file}")
    if made.command:
        click.echo(f"ran {' '.join(made.command)}")
    else:
        click.echo("no supported system trust store found; point programs other than docker at ca.pem yourself")
