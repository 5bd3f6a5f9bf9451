"""The command line: `swarmer COMMAND`. One module per theme, each a thin layer over the library.

Importing this package imports no command: most of them need clients that take a second to import.
"""

import os
from typing import Final

import click

from swarmer import signals
from swarmer.cli.lazy_group import LazyGroup

#: `MODULE:ATTRIBUTE` of each command, and the beginning of its help.
_COMMANDS: Final = {
    "doctor": ("swarmer.cli.doctor:doctor", "Look at this machine and print what will and won't work"),
    "up": ("swarmer.cli.clusters:up", "Boot a cluster and leave it running"),
    "ls": ("swarmer.cli.clusters:ls", "List the clusters of this machine"),
    "status": ("swarmer.cli.clusters:status", "Show the state of a cluster and its nodes"),
    "ssh": ("swarmer.cli.nodes:ssh", "Log in to a node as root"),
    "exec": ("swarmer.cli.nodes:exec_", "Run a command as root, on one node or on all"),
    "logs": ("swarmer.cli.nodes:logs", "Print the journal of a node"),
    "docker": ("swarmer.cli.docker:docker", "Run the docker client on a cluster"),
    "env": ("swarmer.cli.docker:env", "Print environment variables for the plain docker client"),
    "context": ("swarmer.cli.docker:context", "Create or update a docker context"),
    "consul": ("swarmer.cli.consul:consul", "Run the consul client on a cluster, or send a plain HTTP request"),
    "dns": ("swarmer.cli.dns:dns", "Make this host resolve the names of a cluster"),
    "registry": ("swarmer.cli.registry:registry", "Manage the cluster's private registry"),
    "trust": ("swarmer.cli.registry:trust", "Make this host's docker and system trust a cluster's certificates"),
    "down": ("swarmer.cli.clusters:down", "Remove a cluster and everything it owns"),
    "gc": ("swarmer.cli.clusters:gc", "Remove what dead runs left behind"),
    "image": ("swarmer.cli.node_image:image", "Build or show the node image, or remove old ones"),
    "render": ("swarmer.cli.spec:render", "Print the cloud-init data of a node"),
    "vagrant": ("swarmer.cli.vagrant:vagrant", "Commands run by vagrant/Vagrantfile"),
    "schema": ("swarmer.cli.spec:schema", "Print the JSON schema of servers.yml"),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="swarmer", message="swarmer %(version)s")
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


def main() -> None:
    """The entry point. SIGTERM and SIGHUP end a command like Ctrl-C, with exit status 128 + signal."""
    signals.install_handlers()
    if "_SWARMER_COMPLETE" in os.environ:
        from swarmer.cli import completion  # noqa: F401  # it mends click's completion for bash
    cli(prog_name="swarmer")
