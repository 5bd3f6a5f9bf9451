"""SIGTERM and SIGHUP end a program as Ctrl-C does: all that it made is removed. A second signal ends it at once."""

import os
import signal
import time
from types import FrameType

#: Seconds in which more signals are the same one, told by several: a terminal that is closed sends SIGHUP twice, and
#: `make` passes on what its whole group got already.
_SAME = 0.5

_first = 0.0


def install_handlers() -> None:
    """From now on, each of the signals raises KeyboardInterrupt, with its name, but for those that are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` and `&` mean it
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    global _first
    now = time.monotonic()
    if not _first:
        _first = now
        raise KeyboardInterrupt(signal.Signals(number).name)
    if now - _first > _SAME:
        os.write(2, b"\nsecond signal: ending at once; `swarmer gc` removes what is left\n")
        os._exit(128 + number)
