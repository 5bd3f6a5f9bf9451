"""Undoing several things, all of them, whatever one of them raises."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType


class UndoStack:
    """What has to be undone at the end of a `with` block, newest first.

    Add a step *before* the change that it undoes: a change that fails or times out may have been made all the same.
    So a step must accept that there is nothing to undo.

    Raises:
        ExceptionGroup: some steps failed, after all of them ran; the message has the names of these steps. An error
            of the block is its cause. A KeyboardInterrupt of the block gets the message as a note instead, so that it
            still ends the program.
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
        except Exception as error:
            self._errors.append(error)
            if name not in self._failed:
                self._failed.append(name)

    def __enter__(self) -> "UndoStack":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._steps.close()
        if not self._errors:
            return
        message = f"not undone: {', '.join(self._failed)}"
        if isinstance(error, KeyboardInterrupt):
            error.add_note("\n".join([message, *map(str, self._errors)]))
            return
        raise ExceptionGroup(message, self._errors) from error
