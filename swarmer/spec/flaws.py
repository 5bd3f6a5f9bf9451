"""One thing wrong with a spec, and the error that carries several."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flaw:
    """One thing wrong with a spec.

    Attributes:
        at: the keys and indexes that lead to it, as in `("servers", 1, "ip")`.
        message: what is wrong, one sentence.
        hint: the way out.
    """

    at: tuple[str | int, ...]
    message: str
    hint: str


class BrokenRulesError(ValueError):
    """Values that are readable one by one break the rules of a cluster."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("\n".join(f"{flaw.message}; {flaw.hint}" for flaw in flaws))
        self.flaws = flaws
