"""Running functions in threads, for the duration of a block."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from swarmer import interrupts

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Threads that end with a `with` block: nothing that was submitted runs any more behind it.

    If the block raises, or a signal or deadline interrupts it while it waits for results, then what has not begun never
    does, and what runs gets `Cancelled` where it waits next. Otherwise the end of the block waits for everything.

    Args:
        threads: how many functions run at the same time; at least one.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(max(threads, 1))
        self._futures: list[Future[Any]] = []
        self._end = interrupts.Flag()
        self._shield = interrupts.is_shielded()

    def submit(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> "Future[T]":
        """Run a function in a thread. Wait for the result by `results`, since `Future.result` can't be interrupted."""

        def run() -> T:
            with interrupts.under(self._end, shield=self._shield):
                return function(*args, **options)

        future = self._executor.submit(run)
        self._futures.append(future)
        return future

    def results(self, futures: "Sequence[Future[T]]", *, timeout: float = math.inf) -> list[T]:
        """Wait for the results of functions, which have deadlines of their own.

        Args:
            timeout: seconds until the wait gives up nevertheless.

        Raises:
            Exception: what the first of them raised, as soon as any has; the others still run.
            TimeoutError: they took longer than `timeout` seconds.
        """
        _wait(futures, FIRST_EXCEPTION, timeout)
        for future in futures:
            if future.done():
                future.result()
        return [future.result() for future in futures]

    def map(self, function: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
        """Call a function in threads with the items of all iterables in turn, which are equally long.

        Raises:
            Exception: what the first of them, in their order, raised; all have ended.
        """
        futures = [self.submit(function, *each) for each in zip(*arguments, strict=True)]
        _wait(futures, ALL_COMPLETED)
        return [future.result() for future in futures]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = False
        try:
            if not kind:
                _wait(self._futures, ALL_COMPLETED)
                ended = True
        finally:
            self._end.is_set = not ended
            self._executor.shutdown(cancel_futures=not ended)


def _wait(futures: "Sequence[Future[Any]]", until: str, timeout: float = math.inf) -> None:
    missing: Collection[Future[Any]] = ()
    for part in interrupts.parts(timeout):
        _, missing = wait(futures, timeout=part, return_when=until)
        if not missing or (until == FIRST_EXCEPTION and any(_failed(future) for future in futures)):
            interrupts.check()  # Ctrl-C reaches the programs that a thread waits for, too: their failure isn't the news
            return
    raise TimeoutError(f"{len(missing)} of {len(futures)} functions did not end within {timeout:.0f} s")


def _failed(future: "Future[Any]") -> bool:
    return future.done() and future.exception() is not None
