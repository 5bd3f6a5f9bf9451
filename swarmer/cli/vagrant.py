"""`swarmer vagrant plan`, which the Vagrantfile runs."""

import click

from swarmer.cli.common import spec_options
from swarmer.commands import vagrant as vagrant_commands
from swarmer.progress import progress
from swarmer.spec import Spec
from swarmer.terminal import Console


@click.group()
def vagrant() -> None:
    """Commands run by vagrant/Vagrantfile."""


@vagrant.command()
@click.option("--prepare", is_flag=True, help="Create what the machines need: certificates, seed data, network, box.")
@spec_options
def plan(spec: Spec, prepare: bool) -> None:
    """Print the plan of the machines as JSON.

    vagrant/Vagrantfile runs this command: with --prepare on `vagrant up` and `vagrant reload`, and without it, which
    changes nothing, on every other command. A prepared cluster is kept until `swarmer down`.

    \b
      swarmer vagrant plan --stack vagrant
    """
    if not prepare:
        click.echo(vagrant_commands.plan(spec), nl=False)
        return
    with progress(Console(stderr=True)) as shown:
        document = vagrant_commands.prepare(spec, shown)
    click.echo(document, nl=False)
