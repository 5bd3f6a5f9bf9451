"""Runs the commands of SERVICE_CHECK_CMD and SERVICE_CHECK_SCRIPT, each at its interval."""

import contextlib
import heapq
import itertools
import logging
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import docker

from swarmer.node.registrator.checks import Command, Status
from swarmer.node.registrator.engine import UNREACHABLE
from swarmer.node.registrator.services import Service
from swarmer.node.registrator.signals import Changes, Signals

logger = logging.getLogger(__name__)

#: How many commands run at once.
AT_ONCE: Final = 8

#: What a script of this node is run as and with: nothing of ours, tokens least of all.
_UNPRIVILEGED: Final = {"user": "nobody", "group": "nogroup", "extra_groups": []}
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}

_MEANING: Final = {0: Status.PASSING, 1: Status.WARNING}


@dataclass(eq=False)
class _Followed:
    """A command between `follow` and the call that no longer names it; a later one for the same is another.

    Attributes:
        outcome: None until it was run once.
    """

    identity: str
    command: Command
    outcome: Status | None = None


class Commands(threading.Thread):
    """Keeps the outcome of every command that is to be followed."""

    def __init__(self, docker_url: str, signals: Signals) -> None:
        super().__init__(name="commands", daemon=True)
        self.docker_url = docker_url
        self.signals = signals
        self._pool = ThreadPoolExecutor(AT_ONCE, "command")
        self._condition = threading.Condition()
        self._followed: dict[str, _Followed] = {}
        # When, a number that no two have, and what.
        self._due: list[tuple[float, int, _Followed]] = []
        self._numbers = itertools.count()

    def follow(self, commands: Mapping[str, Command]) -> None:
        """From now on run exactly these, by the ID of their check; a new one at once."""
        with self._condition:
            before, self._followed = self._followed, {}
            for identity, command in commands.items():
                known = before.get(identity)
                if known is None or known.command != command:
                    known = _Followed(identity, command)
                    self._schedule(known, time.monotonic())
                self._followed[identity] = known

    def judged(self, service: Service) -> Service:
        """The service with what its commands said last."""
        if not any(check.command for check in service.checks):
            return service
        with self._condition:
            said = {identity: known.outcome for identity, known in self._followed.items() if known.outcome}
        return replace(
            service, checks=tuple(replace(check, status=said.get(check.id, check.status)) for check in service.checks)
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
        except UNREACHABLE as error:
            code, output = -1, f"{type(error).__name__}: {error}"
        status = _MEANING.get(code, Status.CRITICAL)
        with self._condition:
            if not self._is_followed(known):
                return
            before, known.outcome = known.outcome, status
            self._schedule(known, max(time.monotonic(), began + command.interval))
        if status is not before:
            said = output.strip().splitlines() or [f"exit status {code}"]
            logger.info("%s is %s: %s", known.identity, status, said[-1])
            self.signals.report(Changes(consul=True))

    def _in_container(self, command: Command) -> tuple[int, str]:
        client: Any = docker.APIClient(base_url=self.docker_url, version="auto", timeout=math.ceil(command.timeout))
        try:
            execution = client.exec_create(command.container, ["/bin/sh", "-c", command.text])["Id"]
            output = client.exec_start(execution)
            code = client.exec_inspect(execution)["ExitCode"]
        finally:
            client.close()
        return -1 if code is None else int(code), bytes(output).decode(errors="replace")


def _here(command: Command) -> tuple[int, str]:
    privileges: dict[str, Any] = _UNPRIVILEGED if os.geteuid() == 0 else {}
    with subprocess.Popen(
        ["/bin/sh", "-c", command.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
        **privileges,
    ) as process:
        try:
            output, _ = process.communicate(timeout=command.timeout)
        except subprocess.TimeoutExpired:
            # Its children too: one that keeps the pipe open would keep us waiting.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return -1, f"not done within {command.timeout:g} s"
    return process.returncode, output
