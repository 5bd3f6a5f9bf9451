"""The docker client on a cluster: docker, env, context."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import click

from swarmer.cli.common import cluster_argument, cluster_from_args, print_table, select_cluster, usage
from swarmer.cli.completion import complete_first_cluster, complete_node
from swarmer.cli.parallel_output import stream_prefixed
from swarmer.cluster import Cluster
from swarmer.commands import docker as docker_cli
from swarmer.commands import docker_placement as placement
from swarmer.errors import HostError, NodeError
from swarmer.secrets.client_files import Plane
from swarmer.shell import run
from swarmer.state import ClusterHome

#: Commands that concern the whole cluster, by their first words.
_RUN: Final = (("run",), ("create",), ("container", "run"), ("container", "create"))
_PULL: Final = (("pull",), ("image", "pull"))
_LIST: Final = (
    *(("ps",), ("container", "ls"), ("container", "ps"), ("container", "list")),
    *(("images",), ("image", "ls"), ("image", "list")),
)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--node", "name", metavar="NODE", shell_complete=complete_node, help="Use the engine of this node only.")
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="[STACK:DC] ARGS…",
    shell_complete=complete_first_cluster,
)
def docker(name: str | None, words: tuple[str, ...]) -> None:
    """Run the docker client on a cluster, with the cluster's certificates.

    `run` and `create` use the least loaded node that runs tasks, `pull` pulls on all nodes, `ps` and `images` list
    all nodes. Every other command is passed unchanged to the first manager that answers.

    \b
      swarmer docker node ls
      swarmer docker nspawn:dev ps
      swarmer docker --node swarm-02 logs web
      swarmer docker run -d -e constraint:disk==ssd registry.service.dev.nspawn:5000/app
    """
    cluster, arguments = cluster_from_args(words)
    if not arguments:
        usage("missing docker command, such as `ps`")
    if name:
        _become(cluster, name, arguments)
    elif _begins(arguments, _RUN):
        arguments, constraints = placement.split_constraints(arguments)
        _become(cluster, placement.least_loaded(cluster, constraints).name, arguments)
    elif _begins(arguments, _PULL):
        _everywhere(cluster, arguments)
    elif _begins(arguments, _LIST) and not {"--help", "-h"} & set(arguments):
        _list(cluster, arguments)
    else:
        _become(cluster, docker_cli.manager(cluster).name, arguments)


@click.command()
@cluster_argument
def env(home: ClusterHome | None) -> None:
    """Print environment variables for the plain docker client, which then talks to a manager.

    If a proxy is set, they include NO_PROXY with the manager added to it.

    \b
      swarmer env nspawn:dev
      eval "$(swarmer env nspawn:dev)" && docker node ls
    """
    cluster = select_cluster(home)
    for variable, value in docker_cli.variables(docker_cli.manager(cluster)).items():
        click.echo(f"export {variable}={shlex.quote(value)}")
    click.echo(f'# eval "$(swarmer env {cluster.name})"')


@click.command()
@cluster_argument
def context(home: ClusterHome | None) -> None:
    """Create or update a docker context that connects to a manager of a cluster.

    docker copies the certificates to its own folder, so the context outlives the cluster until you remove it. A
    context can't exclude the manager from a proxy of your environment; set NO_PROXY as `swarmer env` prints it.

    \b
      swarmer context nspawn:dev
      docker --context swarmer-nspawn-dev node ls
      docker context rm swarmer-nspawn-dev
    """
    if not shutil.which("docker"):
        raise HostError("docker is not installed on this machine", hint="`swarmer docker` uses the client of a node")
    cluster = select_cluster(home)
    name = f"swarmer-{cluster.name.replace(':', '-')}"
    files = cluster.home.client(Plane.DOCKER)
    variables = docker_cli.variables(docker_cli.manager(cluster))
    engine = variables["DOCKER_HOST"]
    endpoint = f"host={engine},ca={files.trust},cert={files.certificate},key={files.key}"
    known = {json.loads(line)["Name"] for line in run(["docker", "context", "ls", "--format=json"]).stdout.splitlines()}
    verb = "update" if name in known else "create"
    run(["docker", "context", verb, name, "--description", f"swarm of {cluster.name}", "--docker", endpoint])
    _give_back(Path.home())
    click.echo(f"the docker context {name} connects to {engine}")
    click.echo(f"  use it     docker --context {name} node ls")
    click.echo(f"  remove it  docker context rm {name}")
    if excluded := variables.get("NO_PROXY"):
        click.echo("note: a proxy is set in this environment; docker reaches the manager only with")
        click.echo(f"  export NO_PROXY={shlex.quote(excluded)} no_proxy={shlex.quote(excluded)}")


def _give_back(home: Path) -> None:
    """Hand docker's files that root created in a user's home (`bin/as-root`) over to that user."""
    owner = home.stat()
    if os.geteuid() == 0 != owner.st_uid:
        run(["chown", "-R", "--from=0", f"{owner.st_uid}:{owner.st_gid}", home / ".docker"])


def _begins(arguments: Sequence[str], commands: Sequence[tuple[str, ...]]) -> bool:
    return any(tuple(arguments[: len(command)]) == command for command in commands)


def _become(cluster: Cluster, name: str, arguments: Sequence[str]) -> NoReturn:
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    command = docker_cli.command(cluster.node(name), arguments, terminal=terminal)
    command.replace_process()


def _everywhere(cluster: Cluster, arguments: Sequence[str]) -> None:
    """Run a docker command on every node in parallel.

    Raises:
        NodeError: it failed on some nodes, or they are down; the message names them.
    """
    up = [node for node, answers in docker_cli.on_each(cluster.nodes, docker_cli.listens).items() if answers]
    programs = {node.name: docker_cli.command(node, arguments) for node in up}
    failed = stream_prefixed(programs, width=max(len(node.name) for node in cluster.nodes))
    failed += [f"{node.name} (no answer)" for node in cluster.nodes if node not in up]
    if failed:
        raise NodeError(f"the command failed on: {', '.join(failed)}")


def is_table(arguments: Sequence[str]) -> bool:
    """Whether docker prints a table for these arguments of `ps` or `images`; with `-q`, as in `-aq`, it doesn't."""
    return not any(re.match(r"-[als]*q|--quiet|--format", word) for word in arguments)


def _list(cluster: Cluster, arguments: Sequence[str]) -> None:
    """Print the tables of all nodes as one table; other output is printed node by node.

    Raises:
        NodeError: no node answers, or docker rejects the arguments.
    """
    outputs = docker_cli.on_each(cluster.nodes, partial(docker_cli.output, arguments=arguments))
    for node, output in outputs.items():
        if output.status is None:
            click.echo(f"{node.name} did not answer; its entries are missing", err=True)
        elif output.status:
            raise NodeError(f"{node.name}: {output.stderr.strip()}")
    if all(output.status is None for output in outputs.values()):
        raise NodeError(f"no node of {cluster.name} answers", hint=f"see `swarmer status {cluster.name}`")
    tables = {node.name: output.stdout for node, output in outputs.items()}
    if not is_table(arguments):
        click.echo("".join(tables.values()), nl=False)
    elif merged := docker_cli.merge_tables(tables):
        print_table(merged[0], merged[1:])
