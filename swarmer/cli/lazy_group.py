"""The group of all commands: loads a command only when it is used, and prints expected errors without a traceback."""

import signal
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from swarmer.errors import PromiseBroken, SwarmerError, from_os_error


class LazyGroup(click.Group):
    """A group that imports the module of a command when that command is run or completed.

    Until then, a placeholder with the command's short help stands for it, so that `--help`, the completion of command
    names and suggestions for mistyped names need no imports.

    Expected errors end a command with one sentence, a hint, and exit status 1.
    """

    def __init__(self, name: str | None = None, *, lazy: Mapping[str, tuple[str, str]], **options: Any) -> None:
        """Create the group.

        Args:
            lazy: `MODULE:ATTRIBUTE` and short help of each command, by name and in the order of use.
        """
        placeholders = {each: click.Command(each, short_help=text) for each, (_, text) in lazy.items()}
        super().__init__(name, placeholders, **options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of all commands in the order of use; click would sort them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Load the command that the arguments begin with."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name else None, rest

    def load(self, name: str) -> click.Command:
        """The command itself."""
        module, _, attribute = self.lazy[name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SwarmerError, PromiseBroken) as error:
            notes = getattr(error, "__notes__", ())
            click.echo("\n".join([f"error: {error}", *notes]), err=True)
            ctx.exit(1)
        except OSError as error:
            if not error.filename:
                raise
            click.echo(f"error: {from_os_error(error)}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt as interrupt:
            click.echo("interrupted", err=True)
            ctx.exit(128 + signal.Signals[str(interrupt) or "SIGINT"])
