"""The group of all commands: loads a command only when it is used, and prints expected errors without a traceback."""

import select
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from swarmer.errors import PromiseBroken, SwarmerError, from_os_error


class LazyGroup(click.Group):
    """A group that imports the module of a command when that command is run or completed.

    Until then, a placeholder with the command's short help stands for it, so that `--help`, the completion of command
    names and suggestions for mistyped names need no imports.

    Expected errors end a command with one sentence, a hint, and exit status 1. When what reads its output has gone, as
    in `swarmer ls | head -1`, the command ends silently by SIGPIPE, like most programs.
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

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _ending_with_reader():  # --help is printed here
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _ending_with_reader():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
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


@contextmanager
def _ending_with_reader() -> Iterator[None]:
    """End this process by SIGPIPE when its output can't be written; everything in the block has been cleaned up then.

    Python ignores the signal, so that a command is not killed while it creates something, and raises an error instead.
    """
    try:
        yield
    except BrokenPipeError as error:
        if not _reader_has_gone():
            raise RuntimeError("a pipe broke that isn't the output of this command") from error
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)


def _reader_has_gone() -> bool:
    poll = select.poll()
    for output in (1, 2):
        poll.register(output, 0)  # errors are always reported
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
