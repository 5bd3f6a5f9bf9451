"""SIGTERM and SIGHUP act like Ctrl-C: everything the program created is removed. A second signal exits immediately."""

import os
import signal
import time
from types import FrameType

#: Seconds within which further signals count as duplicates of the first: a terminal that is closed sends SIGHUP twice,
#: and `make` forwards a signal that its whole process group has already received.
_DUPLICATES = 0.5

_first = 0.0


def install_handlers() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt with the signal's name; ignored signals stay ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # set on purpose, by `nohup` or a shell's `&`
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    global _first
    now = time.monotonic()
    if not _first:
        _first = now
        raise KeyboardInterrupt(signal.Signals(number).name)
    if now - _first > _DUPLICATES:
        os.write(2, b"\nsecond signal: exiting immediately; run `swarmer gc` to remove leftovers\n")
        os._exit(128 + number)
