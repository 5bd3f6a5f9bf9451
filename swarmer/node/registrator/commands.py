"""Runs the commands of SERVICE_CHECK_CMD and SERVICE_CHECK_SCRIPT, each at its interval."""

import contextlib
import heapq
import itertools
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from swarmer.node.registrator.checks import CheckCommand, Status
from swarmer.node.registrator.engine import Engine
from swarmer.node.registrator.services import Service
from swarmer.node.registrator.wakeups import Changes, Wakeups

logger = logging.getLogger(__name__)

#: How many commands run at once. Each that hangs takes one for its time-out, and may not hold up those that don't.
AT_ONCE: Final = 64

#: Bytes of a command's output that are kept, its last ones.
KEPT: Final = 4096

#: Seconds between two looks at a command that runs on though its output has ended.
_POLL: Final = 0.05

#: What a script of this node is run as and with: nothing of ours, tokens least of all.
_UNPRIVILEGED: Final = {"user": "nobody", "group": "nogroup", "extra_groups": []}
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}

_MEANING: Final = {0: Status.PASSING, 1: Status.WARNING}


@dataclass(eq=False)
class _Followed:
    """A command between `follow` and the call that no longer names it; a later one for the same is another.

    Attributes:
        outcome: None until it was run once.
        at: when that was found out, on the monotonic clock.
    """

    identity: str
    command: CheckCommand
    outcome: Status | None = None
    at: float = 0.0

    def judgement(self) -> Status | None:
        """The outcome; critical when it is so old that the command can't be running as it should."""
        if self.outcome and time.monotonic() - self.at > self.command.patience:
            return Status.CRITICAL
        return self.outcome


class Commands(threading.Thread):
    """Runs the commands of checks at their intervals, and keeps the outcomes."""

    def __init__(self, docker_url: str, wakeups: Wakeups) -> None:
        super().__init__(name="commands", daemon=True)
        self.engine = Engine(docker_url)
        self.wakeups = wakeups
        self._pool = ThreadPoolExecutor(AT_ONCE, "command")
        self._condition = threading.Condition()
        self._followed: dict[str, _Followed] = {}
        # When, a number that no two have, and what.
        self._due: list[tuple[float, int, _Followed]] = []
        self._numbers = itertools.count()

    def follow(self, commands: Mapping[str, CheckCommand]) -> None:
        """Run exactly these from now on, by the ID of their check; a new one immediately."""
        with self._condition:
            before, self._followed = self._followed, {}
            for identity, command in commands.items():
                known = before.get(identity)
                if known is None or known.command != command:
                    known = _Followed(identity, command)
                    self._schedule(known, time.monotonic())
                self._followed[identity] = known

    def with_outcomes(self, service: Service) -> Service:
        """The service with the last outcomes of its commands; a check whose command was not run yet stays as it is."""
        if not any(check.command for check in service.checks):
            return service
        with self._condition:
            said = {identity: status for identity, known in self._followed.items() if (status := known.judgement())}
        return replace(
            service,
            checks=tuple(
                replace(check, status=said[check.id], judged=True) if check.id in said else check
                for check in service.checks
            ),
        )

    def run(self) -> None:
        while True:
            with self._condition:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._condition.wait(self._due[0][0] - time.monotonic() if self._due else None)
                *_, known = heapq.heappop(self._due)
                if not self._is_followed(known):
                    continue
            self._pool.submit(self._try, known)

    def _is_followed(self, known: _Followed) -> bool:
        return self._followed.get(known.identity) is known

    def _schedule(self, known: _Followed, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), known))
        self._condition.notify_all()

    def _try(self, known: _Followed) -> None:
        began = time.monotonic()
        command = known.command
        try:
            code, output = self._in_container(command) if command.container else _here(command)
        except Exception as error:
            # Whatever it is, the next run may succeed.
            code, output = -1, f"{type(error).__name__}: {error}"
        status = _MEANING.get(code, Status.CRITICAL)
        with self._condition:
            if not self._is_followed(known):
                return
            before, known.outcome, known.at = known.outcome, status, time.monotonic()
            self._schedule(known, max(time.monotonic(), began + command.interval))
        if status is not before:
            said = output.strip().splitlines() or [f"exit status {code}"]
            logger.info("%s is %s: %s", known.identity, status, said[-1])
            self.wakeups.report(Changes(consul=True))

    def _in_container(self, command: CheckCommand) -> tuple[int, str]:
        deadline = time.monotonic() + command.timeout
        execution = self.engine.begin_command(command.container, ["/bin/sh", "-c", command.text])
        said = self.engine.run_command(execution, deadline=deadline, keep=KEPT)
        while (state := self.engine.command(execution))["Running"]:
            if time.monotonic() >= deadline:
                # Docker can't end it, and closing its output doesn't.
                if _is_within(command.container, state["Pid"]):
                    _kill(state["Pid"])
                return _too_long(command)
            time.sleep(_POLL)
        code = state["ExitCode"]
        return -1 if code is None else int(code), said.decode(errors="replace")


def _here(command: CheckCommand) -> tuple[int, str]:
    privileges: dict[str, Any] = _UNPRIVILEGED if os.geteuid() == 0 else {}
    deadline = time.monotonic() + command.timeout
    with subprocess.Popen(
        ["/bin/sh", "-c", command.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
        **privileges,
    ) as process:
        assert process.stdout
        said = _last_words(process.stdout.fileno(), deadline)
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process.pid)
            return _too_long(command)
    return code, said.decode(errors="replace")


def _last_words(descriptor: int, deadline: float) -> bytes:
    """The end of what comes out of a descriptor until it ends, or until the deadline."""
    said = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        said = (said + chunk)[-KEPT:]
    return said


def _is_within(container: str, pid: int) -> bool:
    """Whether a process of this machine is one of the container, as it isn't where docker is another machine's."""
    try:
        return container in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _kill(pid: int) -> None:
    """End a command with its children: it leads a process group of its own, in a container as well as here."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _too_long(command: CheckCommand) -> tuple[int, str]:
    return -1, f"timed out after {command.timeout:g} s"
