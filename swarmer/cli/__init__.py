"""The command line: `swarmer COMMAND`. One module per theme, each a thin layer over the library."""

import click

from swarmer import signals
from swarmer.cli import clusters, consul, dns, docker, node_image, nodes, registry, spec, vagrant
from swarmer.cli.common import ExplainingGroup


@click.group(cls=ExplainingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Boot, inspect and remove docker swarm and consul clusters.

    A cluster is named STACK:DC, such as nspawn:dev. The name may be omitted if only one cluster exists.

    \b
      swarmer up                    boot the cluster of servers.yml
      swarmer status                show its state
      swarmer ssh swarm-01          log in to a node
      swarmer docker ps             list the containers of all nodes
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
    """The entry point. SIGTERM and SIGHUP end a command like Ctrl-C, with exit status 128 + signal."""
    signals.install_handlers()
    cli(prog_name="swarmer")
