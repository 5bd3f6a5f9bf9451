"""A mistake in a spec, and the error that carries several."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flaw:
    """A mistake in a spec.

    Attributes:
        at: the keys and indexes that lead to it, such as `("servers", 1, "ip")`.
        message: what is wrong, one sentence.
        hint: how to correct it.
    """

    at: tuple[str | int, ...]
    message: str
    hint: str


class BrokenRulesError(ValueError):
    """Each value is valid by itself, but together they break a rule of a cluster."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("\n".join(f"{flaw.message}; {flaw.hint}" for flaw in flaws))
        self.flaws = flaws
