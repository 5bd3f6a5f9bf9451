"""Runs Vagrant by python-vagrant: every call has a deadline, is logged, and fails with a one-sentence error."""

import contextlib
import fcntl
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from swarmer import interrupts
from swarmer.errors import HostError
from swarmer.pool import Pool
from swarmer.stacks.vagrant.plan import vagrant_home
from swarmer.state import REPOSITORY

# python-vagrant warns if Vagrant isn't installed, but other stacks don't need it.
logging.getLogger("vagrant").setLevel(logging.ERROR)
from vagrant import Vagrant  # noqa: E402

#: Control sequences that move the cursor; Vagrant prints them even if its output isn't a terminal.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

FOLDER = REPOSITORY / "vagrant"

#: Variables that the user may have set for other machines; they are removed from Vagrant's environment.
_FOREIGN_VARIABLES = {"VAGRANT_VAGRANTFILE", "VAGRANT_NO_PARALLEL"}

#: Seconds that Vagrant may take to clean up after SIGINT.
_CLEANUP_TIMEOUT = 30

#: Runs a command in its own session, where Ctrl-C doesn't reach it. Its process id is written to one file. Another file
#: is locked as long as any of its processes is alive, even if swarmer has died.
_IN_SESSION = 'echo $$ >"$1"; shift; exec setsid flock --no-fork "$@"'


class _VagrantWithDeadline(Vagrant):  # type: ignore[misc,unused-ignore]
    """A Vagrant whose commands are ended after a deadline."""

    deadline: float = 60
    lock: Path

    def _make_vagrant_command(self, args: Sequence[str | None]) -> list[str]:
        # On the first SIGINT, Vagrant removes incomplete machines; on a second one, it exits immediately.
        timeout = ["timeout", "--foreground", "--signal=INT", f"--kill-after={_CLEANUP_TIMEOUT}"]
        timeout += [str(int(self.deadline))]
        session = ["sh", "-c", _IN_SESSION, "sh", str(self.lock.with_suffix(".pid")), str(self.lock)]
        return [*session, *timeout, *super()._make_vagrant_command(args)]


class VagrantCommand:
    """Vagrant's commands for one cluster.

    Args:
        state: the folder where Vagrant stores the state of the machines.
        log: receives all output of Vagrant. A file next to it is locked while Vagrant runs.
        variables: additional environment variables.
    """

    def __init__(self, *, state: Path, log: Path, variables: Mapping[str, str]) -> None:
        self.log = log
        self._lock = log.absolute().with_name("running")
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _FOREIGN_VARIABLES},
            "VAGRANT_CWD": str(FOLDER),
            "VAGRANT_DOTFILE_PATH": str(state),
            "VAGRANT_HOME": str(vagrant_home()),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            **variables,
        }

    def up(self, *, deadline: float, on_line: Callable[[str], None]) -> None:
        """Create all machines in parallel, and switch them on.

        Args:
            deadline: seconds after which Vagrant is ended.
            on_line: called with each line that Vagrant prints.

        Raises:
            HostError: Vagrant failed, or took too long.
        """
        with self._to_host_error("up", deadline), self._output() as (vagrant, output):
            vagrant.deadline = deadline
            # Keep a reference: when the generator is closed, it waits for Vagrant's end.
            lines = vagrant.up(stream_output=True) or ()

            def read() -> None:
                for line in lines:
                    plain = _CONTROL_SEQUENCE.sub("", line).strip("\r\n")
                    if plain and not plain.startswith("Progress:"):
                        output.write(f"{time.strftime('%T')} {plain}\n")
                        output.flush()
                        on_line(plain)

            with Pool(1) as pool:  # python-vagrant waits for a line where nothing can interrupt it
                try:
                    pool.results([pool.submit(read)])
                except BaseException:
                    # Otherwise Vagrant would continue to create machines while swarmer removes them.
                    self.end()
                    raise

    def end(self) -> None:
        """End the Vagrant process that this or an earlier swarmer process started, if it is still running.

        Raises:
            HostError: it doesn't end.
        """
        if not self._lock.exists():
            return
        with self._lock.open() as lock:
            for send, number, seconds in ((os.kill, signal.SIGINT, _CLEANUP_TIMEOUT), (os.killpg, signal.SIGKILL, 5)):
                if _is_free(lock):
                    return
                with contextlib.suppress(OSError, ValueError):
                    send(int(self._lock.with_suffix(".pid").read_text()), number)
                deadline = time.monotonic() + seconds
                while not _is_free(lock) and time.monotonic() < deadline:
                    interrupts.sleep(0.1)
            if _is_free(lock):
                return
        raise HostError(
            f"another vagrant process ({self._lock.with_suffix('.pid').read_text().strip()}) is still working on these "
            "machines",
            hint="kill the process, then try again",
        )

    @contextmanager
    def _output(self) -> "Iterator[tuple[_VagrantWithDeadline, IO[str]]]":
        with self.log.open("a") as output:

            @contextmanager
            def to_log() -> Iterator[IO[str]]:
                yield output

            vagrant = _VagrantWithDeadline(str(FOLDER), env=self._environment, out_cm=to_log, err_cm=to_log)
            vagrant.lock = self._lock
            yield vagrant, output

    @contextmanager
    def _to_host_error(self, command: str, deadline: float) -> Iterator[None]:
        """Turn the errors of python-vagrant into a HostError with the last lines of the log."""
        try:
            yield
        except RuntimeError as error:
            raise HostError(
                "Vagrant is not installed", hint="`make setup STACK=vagrant` installs it on Debian and Ubuntu"
            ) from error
        except subprocess.CalledProcessError as error:
            if error.returncode in (124, 137):
                what = f"`vagrant {command}` did not end within {deadline:.0f} s"
            else:
                what = f"`vagrant {command}` failed with {error.returncode}"
            output = self.log.read_text(errors="replace").splitlines()
            lines = [line for line in output if line.strip() and not line.startswith("\t")]  # without Ruby's traceback
            last = "\n  ".join(lines[-6:])
            raise HostError(f"{what}:\n  {last}", hint=f"its whole output is in {self.log}") from None


def _is_free(lock: IO[str]) -> bool:
    """Whether no process holds the lock of a file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True
