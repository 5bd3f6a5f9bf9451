"""`swarmer consul`: the consul client, and plain HTTP requests."""

import re
import sys

import click
import requests

from swarmer import signals
from swarmer.cli.common import cluster_from_args, usage
from swarmer.cli.completion import complete_first_cluster
from swarmer.commands import consul as consul_cli
from swarmer.errors import NodeError

_METHOD = re.compile(r"GET|PUT|POST|DELETE|HEAD|PATCH|OPTIONS|LIST")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="[STACK:DC] {ARGS… | METHOD PATH [BODY]}",
    shell_complete=complete_first_cluster,
)
def consul(words: tuple[str, ...]) -> None:
    """Run the consul client on a cluster, or send a plain HTTP request.

    The client is given the management token and the cluster's certificates, and talks to the first consul server
    that answers. BODY `-` is read from standard input. The exit status is 1 if consul rejects a request.

    \b
      swarmer consul nspawn:dev members
      swarmer consul kv put color blue
      swarmer consul nspawn:dev GET /v1/catalog/nodes
      swarmer consul PUT /v1/kv/color green
    """
    cluster, arguments = cluster_from_args(words)
    if not arguments:
        usage("missing consul command, or METHOD and PATH")
    if not _METHOD.fullmatch(arguments[0]):
        consul_cli.command(cluster, arguments).replace_process()
    if not 2 <= len(arguments) <= 3:
        usage("a request takes METHOD, PATH and optionally BODY")
    method, path, *body = arguments
    content = body[0].encode() if body else None
    try:
        with signals.default_actions():  # nothing to clean up, and a blocking query takes minutes
            answer = consul_cli.request(cluster, method, path, sys.stdin.buffer.read() if content == b"-" else content)
    except requests.RequestException as error:
        raise NodeError(f"{method} {path}: consul stopped answering: {type(error).__name__}") from error
    sys.stdout.buffer.write(answer.content)
    sys.stdout.buffer.write(b"" if answer.content.endswith(b"\n") or not answer.content else b"\n")
    sys.stdout.flush()
    if not answer.ok:
        click.echo(f"{answer.status_code} {answer.reason}", err=True)
        click.get_current_context().exit(1)
