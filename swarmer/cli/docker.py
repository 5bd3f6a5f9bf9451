"""The swarm: docker, env, context."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import click

from swarmer.cli.common import cluster_argument, cluster_from_args, print_table, select_cluster, usage
from swarmer.cli.parallel_output import stream_prefixed
from swarmer.cluster import Cluster
from swarmer.commands import docker as docker_cli
from swarmer.commands import docker_placement as placement
from swarmer.commands.merged_table import merge
from swarmer.errors import HostError, NodeError
from swarmer.shell import run
from swarmer.state import ClusterHome

#: Commands that mean the whole cluster, by the words they begin with.
_RUN: Final = (("run",), ("create",), ("container", "run"), ("container", "create"))
_PULL: Final = (("pull",), ("image", "pull"))
_LIST: Final = (
    *(("ps",), ("container", "ls"), ("container", "ps"), ("container", "list")),
    *(("images",), ("image", "ls"), ("image", "list")),
)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--node", "name", metavar="NODE", help="Ask the engine of this node, and no other.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[STACK:DC] ARGS…")
def docker(name: str | None, words: tuple[str, ...]) -> None:
    """Run the docker client on a cluster, with the right certificates.

    A manager that answers is asked. Besides, `run` and `create` take the least loaded node that runs tasks, `pull`
    pulls on all nodes, and `ps` and `images` show all nodes. Everything else is passed on as it is.

    \b
      swarmer docker nspawn:dev run --rm -it alpine /bin/sh
      swarmer docker nspawn:dev run -d -e constraint:disk==ssd nginx
      swarmer docker ps
      swarmer docker --node swarm-02 logs web
      swarmer docker service ls
    """
    cluster, arguments = cluster_from_args(words)
    if not arguments:
        usage("name a docker command, such as `ps`")
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
    """Print what lets the plain docker client talk to a manager of a cluster.

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
    """Make a docker context that talks to a manager of a cluster, or bring it up to date.

    Its certificates are copied to docker's own folder, so remove it with the cluster.

    \b
      swarmer context nspawn:dev
      docker --context swarmer-nspawn-dev node ls
      docker context rm swarmer-nspawn-dev
    """
    if not shutil.which("docker"):
        raise HostError("this machine has no docker client", hint="`swarmer docker` uses the one of a node")
    cluster = select_cluster(home)
    name = f"swarmer-{cluster.name.replace(':', '-')}"
    folder = cluster.home.folder / "docker"
    engine = docker_cli.variables(docker_cli.manager(cluster))["DOCKER_HOST"]
    endpoint = f"host={engine},ca={folder / 'ca.pem'},cert={folder / 'cert.pem'},key={folder / 'key.pem'}"
    known = {json.loads(line)["Name"] for line in run(["docker", "context", "ls", "--format=json"]).stdout.splitlines()}
    verb = "update" if name in known else "create"
    run(["docker", "context", verb, name, "--description", f"swarm of {cluster.name}", "--docker", endpoint])
    _give_back(Path.home())
    click.echo(f"the docker context {name} talks to {engine}")
    click.echo(f"  use it     docker --context {name} node ls")
    click.echo(f"  remove it  docker context rm {name}")


def _give_back(home: Path) -> None:
    """Let what root made for docker in the home of a person (`bin/as-root`) be that person's."""
    owner = home.stat()
    if os.geteuid() == 0 != owner.st_uid:
        run(["chown", "-R", "--from=0", f"{owner.st_uid}:{owner.st_gid}", home / ".docker"])


def _begins(arguments: Sequence[str], commands: Sequence[tuple[str, ...]]) -> bool:
    return any(tuple(arguments[: len(command)]) == command for command in commands)


def _become(cluster: Cluster, name: str, arguments: Sequence[str]) -> NoReturn:
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    command = docker_cli.command(cluster.node(name), arguments, terminal=terminal)
    sys.stdout.flush()
    command.replace_process()


def _everywhere(cluster: Cluster, arguments: Sequence[str]) -> None:
    """Run it on every node side by side.

    Raises:
        NodeError: it failed on some; or they are down; the message names them.
    """
    up = [node for node, answers in docker_cli.on_each(cluster.nodes, docker_cli.listens).items() if answers]
    processes = {
        node.name: docker_cli.command(node, arguments).popen(
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for node in up
    }
    failed = stream_prefixed(processes, width=max(len(node.name) for node in cluster.nodes))
    failed += [f"{node.name} (no answer)" for node in cluster.nodes if node not in up]
    if failed:
        raise NodeError(f"it failed on {', '.join(failed)}")


def is_table(arguments: Sequence[str]) -> bool:
    """Whether docker answers these arguments of `ps` or `images` by a table: also `-aq` asks for IDs alone."""
    return not any(re.match(r"-[als]*q|--quiet|--format", word) for word in arguments)


def _list(cluster: Cluster, arguments: Sequence[str]) -> None:
    """Show the tables of all nodes as one; what isn't a table is shown one after another.

    Raises:
        NodeError: no node answers, or docker didn't like the arguments.
    """
    said = docker_cli.on_each(cluster.nodes, partial(docker_cli.output, arguments=arguments))
    for node, output in said.items():
        if output.status is None:
            click.echo(f"{node.name} does not answer; what it has is not shown", err=True)
        elif output.status:
            raise NodeError(f"{node.name}: {output.stderr.strip()}")
    if all(output.status is None for output in said.values()):
        raise NodeError(f"no node of {cluster.name} answers", hint=f"look at `swarmer status {cluster.name}`")
    tables = {node.name: output.stdout for node, output in said.items()}
    if not is_table(arguments):
        click.echo("".join(tables.values()), nl=False)
    elif merged := merge(tables):
        print_table(merged[0], merged[1:])
