"""SIGTERM and SIGHUP act like Ctrl-C: everything the program created is removed. A second signal exits immediately."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from swarmer import interrupts
from swarmer.alarm import Alarm

#: Seconds within which further signals count as duplicates of the first: a terminal that is closed sends SIGHUP twice,
#: and `make` forwards a signal that its whole process group has already received.
_DUPLICATES = 0.5

#: Seconds after which a signal that nothing has noticed is raised the hard way.
GRACE = 5.0

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _exit(number: int) -> None:
    os.write(2, b"\nsecond signal: exiting immediately; run `swarmer gc` to remove leftovers\n")
    os._exit(128 + number)


class _Interruption:
    """What the first signal caused, and what the next one does."""

    def __init__(self) -> None:
        self.error: KeyboardInterrupt | None = None
        self.since = 0.0
        self.first: Callable[[], object] = lambda: None
        self.second: Callable[[int], object] = _exit
        self.alarm: Alarm | None = None


_interruption = _Interruption()


def install_handlers(
    *others: signal.Signals,
    first: Callable[[], object] = lambda: None,
    second: Callable[[int], object] = _exit,
) -> None:
    """Make SIGINT, SIGTERM and SIGHUP request a KeyboardInterrupt with the signal's name; ignored ones stay ignored.

    What doesn't notice the request within `GRACE` is interrupted the hard way.

    Args:
        others: signals that do the same.
        first: called by the handler of the first signal.
        second: called with the number of every further signal that isn't a duplicate.
    """
    _interruption.first, _interruption.second = first, second
    for number in (*_ENDING, *others):
        if signal.getsignal(number) is not signal.SIG_IGN:  # set on purpose, by `nohup` or a shell's `&`
            signal.signal(number, _interrupt)
    _interruption.alarm = _interruption.alarm or Alarm(_raise_overdue)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _interruption.error:
        _interruption.error, _interruption.since = KeyboardInterrupt(signal.Signals(number).name), now
        interrupts.request(_interruption.error)
        if _interruption.alarm:
            _interruption.alarm.set(GRACE)
        _interruption.first()
    elif now - _interruption.since > _DUPLICATES:
        _interruption.second(number)


def _raise_overdue() -> None:
    """Raise KeyboardInterrupt if nothing has noticed the signal for too long.

    This is the last resort. The exception may strike where it leaves a lock taken, as `interrupts` explains. Without
    it, a program would ignore Ctrl-C as long as it is in code that isn't ours: a scenario that sleeps, or a library
    that waits for its server. Undoing is never interrupted this way, only by a second signal.
    """
    error, alarm = _interruption.error, _interruption.alarm
    if not (error and alarm and interrupts.is_pending(error)):
        return
    if interrupts.is_shielded():
        alarm.set(1.0)
    elif interrupts.withdraw(error):
        raise error


@contextmanager
def default_actions() -> Iterator[None]:
    """Let signals end this process at once in a block that has nothing to clean up, and waits for something else.

    The block may be one system call that doesn't look for requests: another program, or a read that lasts minutes.
    """
    changed = [number for number in _ENDING if signal.getsignal(number) is _interrupt]
    for number in changed:
        signal.signal(number, signal.SIG_DFL)
    try:
        interrupts.check()
        yield
    finally:
        for number in changed:
            signal.signal(number, _interrupt)
