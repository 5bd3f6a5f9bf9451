"""Showing the progress of long operations: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

# Most commands show no progress, and rich takes a while to import.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Progress(Protocol):
    """What a long operation reports to."""

    def say(self, line: str) -> None:
        """Report a line about the operation as a whole."""

    def node(self, name: str, state: str) -> None:
        """Report that a node has reached a state: `launched`, `ssh`, `booted`."""


class Silent:
    """Discards all reports."""

    def say(self, line: str) -> None: ...

    def node(self, name: str, state: str) -> None: ...


class PlainProgress:
    """Prints each report on a line of its own, with the seconds since the start."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.start = time.monotonic()

    def say(self, line: str) -> None:
        self._print(line)

    def node(self, name: str, state: str) -> None:
        self._print(f"{name} {state}")

    def _print(self, text: str) -> None:
        self.console.print(
            f"[{time.monotonic() - self.start:5.1f} s] {text}", markup=False, highlight=False, soft_wrap=True
        )


class LiveProgress:
    """A table that is redrawn in place: each node with the states it has reached."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.start = time.monotonic()
        self.states: dict[str, list[str]] = {}
        self.last = ""

    def say(self, line: str) -> None:
        self.last = line

    def node(self, name: str, state: str) -> None:
        self.states.setdefault(name, []).append(f"{state} {time.monotonic() - self.start:.1f} s")

    def __rich__(self) -> "Table":
        from rich.markup import escape
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for name, states in self.states.items():
            table.add_row(f"[bold]{name}[/bold]", " · ".join(states))
        table.add_row(f"{time.monotonic() - self.start:.1f} s", escape(self.last))
        return table


@contextmanager
def progress(console: "Console") -> Iterator[Progress]:
    """Live progress if the console is a terminal, plain lines otherwise."""
    if not console.is_terminal:
        yield PlainProgress(console)
        return
    from rich.live import Live

    live = LiveProgress(console)
    with Live(live, console=console, refresh_per_second=8):
        yield live
