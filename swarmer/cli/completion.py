"""Completion in shells: the names of clusters and nodes, and colons in bash."""

import json
from collections.abc import Sequence

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class


def clusters() -> dict[str, list[str]]:
    """The clusters of this machine, each with the names of its nodes, as far as this user can read that."""
    from swarmer.state import cluster_homes

    found = {}
    try:
        for home in cluster_homes():
            servers = json.loads(home.ledger.read_text())["spec"]["servers"]
            found[home.name] = [str(server["name"]) for server in servers]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # an error would be printed into the line that the user is typing
    return found


def complete_cluster(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `STACK:DC`."""
    return _items(list(clusters()), incomplete)


def complete_node(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete NODE, of all clusters unless one is named before."""
    known = clusters()
    named = [word for word in context.params.get("words") or () if word in known] or list(known)
    return _items([node for name in named for node in known[name]], incomplete)


def complete_cluster_and_node(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete `[STACK:DC] NODE`, and nothing after it."""
    words = list(context.params.get("words") or ())
    first = complete_cluster(context, parameter, incomplete) if not words else []
    if words and not (len(words) == 1 and words[0] in clusters()):
        return []
    return first + complete_node(context, parameter, incomplete)


def complete_first_cluster(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `[STACK:DC]`, and nothing after it."""
    return [] if context.params.get("words") else complete_cluster(context, parameter, incomplete)


def _items(names: Sequence[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


class _Bash(BashComplete):
    """For bash, a colon separates words, so that `nspawn:dev` arrives as three, and only the last one is replaced."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        *words, last = _joined([*args, incomplete])
        self._replaced = last.rpartition(":")[0]
        return words, last

    def format_completion(self, item: CompletionItem) -> str:
        if self._replaced:
            item.value = item.value.removeprefix(f"{self._replaced}:")
        return super().format_completion(item)


def _joined(words: Sequence[str]) -> list[str]:
    """The words, those around a colon as one."""
    joined: list[str] = []
    for word in words:
        if joined and (word == ":" or joined[-1].endswith(":")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


add_completion_class(_Bash)
