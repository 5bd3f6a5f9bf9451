"""Printing on the terminal with rich."""

from rich import console


class Console(console.Console):
    """A console that raises BrokenPipeError when its reader has gone, as `print` does; rich exits with status 1."""

    def on_broken_pipe(self) -> None:
        """Called by rich while it handles the error."""
        raise
