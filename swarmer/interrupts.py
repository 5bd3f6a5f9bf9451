"""Cooperative interrupts: whatever ends a program early only makes a request, and what waits looks for one.

An exception that a signal handler raises strikes between any two instructions of the main thread: while a thread pool
or a queue holds its lock, which then stays taken, or in the middle of undoing something. So handlers call `request`,
and the exception is raised by `check`. Every wait of this package consists of short ones with a `check` before each.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: The longest time that a wait doesn't look for a request, in seconds.
_LOOK = 0.1


class Cancelled(BaseException):
    """Raised in the thread of a pool whose block has ended early; nothing is left to do but to clean up."""


class Flag:
    """Set when all threads that run `under` it are to end."""

    def __init__(self) -> None:
        self.is_set = False


class _Request:
    def __init__(self, error: BaseException, *, urgent: bool) -> None:
        self.error = error
        self.urgent = urgent


#: What the main thread hasn't raised yet. Changed by single operations on the list: a handler may run between two.
_requests: list[_Request] = []


class _Thread(threading.local):
    """What is in force for a thread."""

    flag: Flag | None = None
    shields: int = 0


_here = _Thread()


def request(error: BaseException, *, urgent: bool = False) -> None:
    """Have the main thread raise an exception where it next looks for one. Signal handlers may call this.

    Args:
        urgent: raise it in a block that is shielded, too.
    """
    _requests.append(_Request(error, urgent=urgent))


def is_pending(error: BaseException) -> bool:
    """Whether an exception was requested, but not raised yet."""
    return any(each.error is error for each in _requests.copy())


def withdraw(error: BaseException) -> bool:
    """Take a request back; False if there is none, because the exception has been raised."""
    for each in _requests.copy():
        if each.error is error:
            _requests.remove(each)
            return True
    return False


def check() -> None:
    """Raise what was requested: in the main thread the exception itself, in a thread of a pool `Cancelled`."""
    if threading.get_ident() != threading.main_thread().ident:
        if _here.flag and _here.flag.is_set and not _here.shields:
            raise Cancelled
        return
    for each in _requests.copy():
        if each.urgent or not _here.shields:
            _requests.remove(each)
            raise each.error


def parts(seconds: float) -> Iterator[float]:
    """Divide a wait into short ones: yields how long to wait next, until it has taken so many seconds in all.

    What is requested meanwhile is raised. At least one part is yielded, of 0 seconds if need be.
    """
    deadline = time.monotonic() + seconds
    left = seconds
    while True:
        check()
        yield min(max(left, 0.0), _LOOK)
        left = deadline - time.monotonic()
        if left <= 0:
            return


def sleep(seconds: float) -> None:
    """`time.sleep`, but what is requested meanwhile is raised."""
    for part in parts(seconds):
        time.sleep(part)
    check()


@contextmanager
def shielded() -> Iterator[None]:
    """Raise nothing in this block unless it is urgent; it is raised behind the block. For undoing things."""
    _here.shields += 1
    try:
        yield
    finally:
        _here.shields -= 1


@contextmanager
def unshielded() -> Iterator[None]:
    """Raise what is requested in this block, although the block around it is shielded."""
    _here.shields, before = 0, _here.shields
    try:
        yield
    finally:
        _here.shields = before


def is_shielded() -> bool:
    """Whether this thread is in a block that is shielded."""
    return _here.shields > 0


@contextmanager
def under(flag: Flag, *, shield: bool) -> Iterator[None]:
    """Raise `Cancelled` in this block, which a thread of a pool runs, once the flag is set.

    Args:
        shield: don't; the pool itself is in a block that is shielded.
    """
    _here.flag, before = flag, _here.flag
    _here.shields += shield
    try:
        yield
    finally:
        _here.flag = before
        _here.shields -= shield
