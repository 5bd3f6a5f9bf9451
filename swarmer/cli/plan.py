"""What vagrant/Vagrantfile makes machines from."""

import click
from rich.console import Console

from swarmer.cli.common import spec_options
from swarmer.commands import vagrant as by_hand
from swarmer.progress import progress
from swarmer.spec import Spec


@click.command()
@click.option("--prepare", is_flag=True, help="Make all that the machines need: certificates, seed data, network, box.")
@spec_options
def plan(spec: Spec, prepare: bool) -> None:
    """Print, as JSON, what the Vagrantfile makes machines from.

    vagrant/Vagrantfile asks for it by itself: with --prepare on `vagrant up` and `vagrant reload`, without it on
    every other command, when nothing is made or changed. A prepared cluster is kept until `swarmer down`.

    \b
      swarmer plan --stack vagrant
    """
    if not prepare:
        click.echo(by_hand.plan(spec), nl=False)
        return
    with progress(Console(stderr=True)) as shown:
        document = by_hand.prepare(spec, shown)
    click.echo(document, nl=False)
