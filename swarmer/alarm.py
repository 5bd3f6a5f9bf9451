"""Timers that interrupt the main thread by a signal.

Not by SIGALRM, of which a process has only one: pytest-timeout sets it for its own purposes, and leaves it without a
handler, so that the next alarm would kill the process.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic  # not `time`: a test may replace `time.monotonic`
from types import FrameType

_SIGNAL = signal.SIGUSR2


class Alarm:
    """One timer. Its function runs in the main thread, wherever that is, and may raise."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring = ring
        _clock.start()

    def set(self, seconds: float) -> None:
        """Ring once after so many seconds, instead of when it was set to before."""
        _clock.change(self, monotonic() + seconds)

    def stop(self) -> None:
        """Ring no more, unless it is set again."""
        _clock.change(self, None)


class _Clock:
    """The thread that waits for all timers, and the handler of the signal that it sends."""

    def __init__(self) -> None:
        self._due: dict[Alarm, float] = {}
        self._ringing: deque[Alarm] = deque()
        # Reentrant: a handler may set a timer while the main thread is setting one.
        self._changed = threading.Condition(threading.RLock())
        self._started = False

    def start(self) -> None:
        if not self._started:
            self._started = True
            signal.signal(_SIGNAL, self._interrupt)
            threading.Thread(target=self._wait, name="alarm", daemon=True).start()

    def change(self, alarm: Alarm, due: float | None) -> None:
        with self._changed:
            self._due.pop(alarm, None)
            if due is not None:
                self._due[alarm] = due
            self._changed.notify()

    def _wait(self) -> None:
        main = threading.main_thread().ident
        assert main
        with self._changed:
            while True:
                alarm = min(self._due, key=lambda each: self._due[each], default=None)
                left = None if alarm is None else self._due[alarm] - monotonic()
                if alarm is None or left is None or left > 0:
                    self._changed.wait(left)
                else:
                    del self._due[alarm]
                    self._ringing.append(alarm)
                    signal.pthread_kill(main, _SIGNAL)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        try:
            alarm = self._ringing.popleft()
        except IndexError:  # two signals have become one, and its handler has seen to both
            return
        if self._ringing:
            signal.raise_signal(_SIGNAL)
        alarm.ring()


_clock = _Clock()
