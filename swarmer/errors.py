"""The errors that are shown to the user: one sentence each, with a hint about what to do next."""

from collections.abc import Sequence
from difflib import get_close_matches


class SwarmerError(Exception):
    """An error that the user can act on; shown without a traceback.

    Args:
        message: what is wrong, one sentence.
        hint: what to do next, one sentence; printed on a line of its own.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SpecError(SwarmerError):
    """`servers.yml` is invalid."""


class HostError(SwarmerError):
    """Something is missing on this machine, or in the way."""


class NodeError(SwarmerError):
    """A node failed to do something."""


class PromiseBroken(AssertionError):
    """The cluster broke a promise; the harness itself works."""


def from_os_error(error: OSError) -> HostError:
    """An error of the operating system as a sentence; if permission was denied, the hint is to run as root."""
    hint = f"if root created it, {as_root()}" if isinstance(error, PermissionError) else ""
    return HostError(f"{error.filename}: {(error.strerror or str(error)).lower()}", hint=hint)


def needs_root(what: str, command: str = "…") -> HostError:
    """The error for something that only root may do.

    Args:
        what: the subject of "… needs root".
        command: the words after `swarmer`, for the hint.
    """
    return HostError(f"{what} needs root", hint=as_root(command))


def as_root(command: str = "…") -> str:
    """The hint to run `swarmer COMMAND` as root."""
    return f"run `bin/as-root .venv/bin/swarmer {command}`"


def nearest(word: str, choices: Sequence[str]) -> str:
    """A hint that names the choice closest to `word`, or all choices if none is close."""
    close = get_close_matches(word.lower(), choices, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(choices)}"
