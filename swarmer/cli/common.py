"""Shared by the commands: naming a cluster, options that select a spec, tables and JSON."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from swarmer import cluster_status, lifecycle
from swarmer.cli.completion import complete_cluster
from swarmer.cluster import Cluster
from swarmer.errors import SwarmerError
from swarmer.spec import NAME_PATTERN, STACKS
from swarmer.state import ClusterHome


class ClusterName(click.ParamType[ClusterHome]):
    """`STACK:DC`."""

    name = "STACK:DC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ClusterHome:
        stack, _, dc = str(value).partition(":")
        if stack not in STACKS or not re.match(NAME_PATTERN, dc):
            self.fail(f"{value!r} is not of the form STACK:DC; stacks are {', '.join(STACKS)}", param, ctx)
        return ClusterHome(stack, dc)


cluster_argument = click.argument(
    "home", type=ClusterName(), required=False, metavar="[STACK:DC]", shell_complete=complete_cluster
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def select_cluster(home: ClusterHome | None) -> Cluster:
    """The named cluster, or the only running one if none is named.

    Raises:
        SwarmerError: the named cluster doesn't exist; or none was named, and the number of clusters isn't one.
    """
    return lifecycle.open_kept(home or single(cluster_status.living()))


def single(homes: Sequence[ClusterHome]) -> ClusterHome:
    """The only item of `homes`.

    Raises:
        SwarmerError: `homes` is empty, or has several items; the hint lists them.
    """
    if not homes:
        raise SwarmerError("no cluster is running", hint="`swarmer up` boots the cluster of servers.yml")
    if len(homes) > 1:
        names = ", ".join(home.name for home in homes)
        raise SwarmerError(f"there are {len(homes)} clusters", hint=f"name one of them: {names}")
    return homes[0]


def cluster_from_args(words: Sequence[str]) -> tuple[Cluster, list[str]]:
    """Split `[STACK:DC] WORD…` into the cluster (the only running one if none is named) and the remaining words."""
    named = words and re.fullmatch(r"[\w-]+:[\w-]+", words[0])
    home = ClusterName().convert(words[0], None, None) if named else None
    return select_cluster(home), list(words[1:] if home else words)


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select a spec; the command receives it as `spec`."""

    @click.option(
        "--servers",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The file that describes the cluster.  [default: servers.yml, here or in a folder above]",
    )
    @click.option("--stack", metavar="STACK", help="Where nodes run; overrides the file.")
    @click.option("--size", type=int, metavar="N", help="Boot N nodes, each with the settings of the first server.")
    @wraps(command)
    def with_spec(servers: Path | None, stack: str | None, size: int | None, **others: Any) -> Any:
        from swarmer.spec import file as spec_file  # a slow import, for the parser of YAML

        path = servers or Path(os.path.relpath(spec_file.find(Path.cwd()) or spec_file.NAME))
        return command(spec=spec_file.load(path, stack=stack, size=size), **others)

    return with_spec


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show a spinner with the text `what` on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from swarmer.terminal import Console

    with Console(stderr=True).status(what):
        yield


def print_json(value: object) -> None:
    """Print indented JSON on stdout."""
    click.echo(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout. Rows are never truncated, neither on a small terminal nor in a pipe."""
    from rich.table import Table

    from swarmer.terminal import Console

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=1000, markup=False, highlight=False).print(table)


def size_text(count: int | None) -> str:
    """A number of bytes in human-readable form, such as `95 MB`; `-` for None."""
    return "-" if count is None else f"{count / 1e6:.0f} MB"


def usage(message: str) -> NoReturn:
    """Raise click's usage error, exit status 2."""
    raise click.UsageError(message, click.get_current_context())
