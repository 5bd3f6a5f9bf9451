"""Undoing several things, all of them, whatever one of them raises."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from subprocess import SubprocessError
from types import TracebackType
from typing import Final

from swarmer import interrupts
from swarmer.errors import SwarmerError

#: What a step raises when it fails. Everything else is a defect, or ends the program (Ctrl-C, `pytest.exit`).
_FAILURES: Final = (SwarmerError, AssertionError, OSError, SubprocessError)


class UndoStack:
    """What has to be undone at the end of a `with` block, newest first.

    Add a step *before* the change that it undoes: a change that fails or times out may have been made all the same.
    So a step must accept that there is nothing to undo.

    Raises:
        ExceptionGroup: some steps failed; the message names them. If the block failed too, that is its cause. All steps
            have run, whatever signal arrives meanwhile. When the block or a step raises what ends the program, that
            goes on instead, with a note on the failures.
    """

    def __init__(self) -> None:
        self._steps = ExitStack()
        self._failed: list[str] = []
        self._errors: list[Exception] = []

    def add(self, name: str, step: Callable[[], object]) -> None:
        """Run `step` at the end of the block.

        Args:
            name: what an error is reported for, such as the name of a node.
        """
        self._steps.callback(partial(self._run, name, step))

    def _run(self, name: str, step: Callable[[], object]) -> None:
        try:
            step()
        except _FAILURES as error:
            self._errors.append(error)
            if name not in self._failed:
                self._failed.append(name)

    def __enter__(self) -> "UndoStack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with interrupts.shielded():
                self._steps.close()
        except BaseException as interruption:
            self._annotate(interruption)
            raise
        if error and not isinstance(error, _FAILURES):
            self._annotate(error)
        elif self._errors:
            raise ExceptionGroup(self._message, self._errors) from error

    @property
    def _message(self) -> str:
        return f"not undone: {', '.join(self._failed)}"

    def _annotate(self, interruption: BaseException) -> None:
        if self._errors:
            interruption.add_note("\n".join([self._message, *map(str, self._errors)]))
