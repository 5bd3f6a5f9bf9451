"""The errors a person sees. Each is one sentence, and a hint that tells the way out."""

from collections.abc import Sequence
from difflib import get_close_matches


class SwarmerError(Exception):
    """Something a person can act on; shown without a traceback.

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
    """`servers.yml` can't be used as it stands."""


class HostError(SwarmerError):
    """This machine lacks something, or has something in the way."""


class NodeError(SwarmerError):
    """A node didn't do what it was told."""


class PromiseBroken(AssertionError):
    """The cluster did not do what was promised; the harness itself is fine."""


def from_os_error(error: OSError) -> HostError:
    """What the system refused, as an error with a way out."""
    hint = ""
    if isinstance(error, PermissionError):
        hint = "where root has made it, root must go on: `bin/as-root .venv/bin/swarmer …`"
    return HostError(f"{error.filename}: {(error.strerror or str(error)).lower()}", hint=hint)


def nearest(word: str, choices: Sequence[str]) -> str:
    """A hint that names the choice most like `word`, or else all of them."""
    close = get_close_matches(word.lower(), choices, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(choices)}"
