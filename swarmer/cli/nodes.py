"""Commands for single nodes: ssh, exec, logs."""

import sys
from collections.abc import Sequence

import click

from swarmer.cli.common import cluster_from_args, usage
from swarmer.cli.completion import complete_cluster_and_node
from swarmer.cli.parallel_output import stream_prefixed
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.commands.program import Program
from swarmer.errors import NodeError
from swarmer.ssh import quoted


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[STACK:DC] NODE", shell_complete=complete_cluster_and_node)
def ssh(words: tuple[str, ...]) -> None:
    """Log in to a node as root.

    \b
      swarmer ssh swarm-01
      swarmer ssh nspawn:dev swarm-01
    """
    cluster, rest = cluster_from_args(words)
    if len(rest) != 1:
        usage("name one node; to run a command, use `swarmer exec`")
    Program.here(cluster.ssh.command(_switched_on(cluster, rest[0]).name)).replace_process()


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--all", "everywhere", is_flag=True, help="Run on all nodes in parallel; lines start with the node.")
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="[STACK:DC] {NODE|--all} COMMAND…",
    shell_complete=complete_cluster_and_node,
)
def exec_(everywhere: bool, words: tuple[str, ...]) -> None:
    """Run a command as root, on one node or on all.

    A single word is run by the shell; several words are a program and its arguments. The exit status is that of the
    command; with --all it is 1 if the command failed on any node.

    \b
      swarmer exec swarm-01 consul members
      swarmer exec nspawn:dev swarm-01 'journalctl -u consul | tail'
      swarmer exec --all uptime
    """
    cluster, rest = cluster_from_args(words)
    if rest[:1] == ["--all"]:
        everywhere = True
        rest = rest[1:]
    nodes = cluster.nodes if everywhere else [cluster.node(word) for word in rest[:1]]
    command = rest if everywhere else rest[1:]
    if command[:1] == ["--"]:
        command = command[1:]
    if not nodes or not command:
        usage("missing node (or --all) and command")
    shell = command[0] if len(command) == 1 else quoted(*command)
    if everywhere:
        _run_everywhere(nodes, shell)
    else:
        terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        node = _switched_on(cluster, nodes[0].name)
        Program.here(cluster.ssh.command(node.name, "--", shell, options=terminal)).replace_process()


@click.command()
@click.option("--unit", "-u", metavar="U", help="Show only this systemd unit.")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new entries as they are written.")
@click.option("--boot", "-b", is_flag=True, help="Show only entries since the node's last boot.")
@click.option("--console", is_flag=True, help="Print the console output instead of the journal.")
@click.argument("words", nargs=-1, required=True, metavar="[STACK:DC] NODE", shell_complete=complete_cluster_and_node)
def logs(unit: str | None, follow: bool, boot: bool, console: bool, words: tuple[str, ...]) -> None:
    """Print the journal of a node.

    If the node is switched off, its console output is printed instead.

    \b
      swarmer logs swarm-01 --unit consul --follow
      swarmer logs nspawn:dev swarm-01 --boot
    """
    cluster, rest = cluster_from_args(words)
    if len(rest) != 1:
        usage("name one node")
    node = cluster.node(rest[0])
    if console or not node.running:
        if not console:
            click.echo(f"{node.name} is switched off; its console output:", err=True)
        click.echo(node.console(), nl=False)
        return
    journalctl = ["journalctl", "--no-pager", *(["--unit", unit] if unit else [])]
    journalctl += ["--follow"] * follow + ["--boot"] * boot
    Program.here(cluster.ssh.command(node.name, "--", quoted(*journalctl))).replace_process()


def _switched_on(cluster: Cluster, name: str) -> Node:
    node = cluster.node(name)
    if not node.running:
        raise NodeError(
            f"{name} is switched off", hint=f"`swarmer logs {cluster.name} {name}` shows its console output"
        )
    return node


def _run_everywhere(nodes: Sequence[Node], shell: str) -> None:
    """Run a shell command on every node, and print each line of output with the node's name in front.

    Raises:
        NodeError: it failed on some nodes, or they are switched off; the message names them.
    """
    programs = {
        node.name: Program.here(node.cluster.ssh.command(node.name, "--", shell)) for node in nodes if node.running
    }
    failed = stream_prefixed(programs, width=max(len(node.name) for node in nodes))
    failed += [f"{node.name} (switched off)" for node in nodes if node.name not in programs]
    if failed:
        raise NodeError(f"the command failed on: {', '.join(failed)}")
