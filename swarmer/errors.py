"""The errors a person sees. Each is one sentence, and a hint that tells the way out."""


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
