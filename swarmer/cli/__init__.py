"""The command line: `swarmer COMMAND`. One module per theme, each a thin layer over the library."""

import click

from swarmer import signals
from swarmer.cli import clusters, consul, dns, docker, node_image, nodes, registry, spec, vagrant
from swarmer.cli.common import ExplainingGroup


@click.group(cls=ExplainingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Boot docker swarm and consul clusters, look into them, and take them down.

    A cluster is called STACK:DC, as in nspawn:dev. Where only one is running, its name may be left out.

    \b
      swarmer up                    boot what servers.yml describes
      swarmer status                is it healthy?
      swarmer ssh swarm-01          log in
      swarmer docker ps             what runs on all nodes
      pytest --keep-cluster         run the scenarios on it
      swarmer down                  remove it
    """


for command in (
    *(clusters.up, clusters.ls, clusters.status),
    *(nodes.ssh, nodes.exec_, nodes.logs),
    *(docker.docker, docker.env, docker.context, consul.consul, dns.dns),
    *(registry.registry, registry.trust),
    *(clusters.down, clusters.gc),
    *(node_image.image, spec.render, vagrant.vagrant, spec.schema),
):
    cli.add_command(command)


def main() -> None:
    """The entry point: SIGTERM and SIGHUP end a command as Ctrl-C does, with status 128 + signal."""
    signals.install_handlers()
    cli(prog_name="swarmer")
