"""Vagrant, by way of python-vagrant: every call has a deadline, a log, and a failure that is a sentence."""

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

from swarmer.errors import HostError
from swarmer.stacks.vagrant.plan import vagrant_home
from swarmer.state import REPOSITORY

# It warns of a Vagrant that isn't there, and who uses another stack needs none.
logging.getLogger("vagrant").setLevel(logging.ERROR)
from vagrant import Vagrant  # noqa: E402

#: What Vagrant moves the cursor with, also when nobody sees it.
_CONTROLS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

FOLDER = REPOSITORY / "vagrant"

#: What a person may have told Vagrant of other machines.
_NOT_OURS = {"VAGRANT_VAGRANTFILE", "VAGRANT_NO_PARALLEL"}

#: Seconds that Vagrant may take to remove what it has half made.
_ENDING = 30

#: Runs a command in a session of its own, where no Ctrl-C reaches it. Its id is in one file; another one is locked for
#: as long as any of its processes lives, whatever became of us.
_LEASHED = 'echo $$ >"$1"; shift; exec setsid flock --no-fork "$@"'


class _Patient(Vagrant):  # type: ignore[misc,unused-ignore]
    """A Vagrant whose commands are ended when they take too long."""

    deadline: float = 60
    leash: Path

    def _make_vagrant_command(self, args: Sequence[str | None]) -> list[str]:
        # SIGINT first: Vagrant then removes what it has half made; told twice, it doesn't.
        ending = ["timeout", "--foreground", "--signal=INT", f"--kill-after={_ENDING}", str(int(self.deadline))]
        leash = ["sh", "-c", _LEASHED, "sh", str(self.leash.with_suffix(".pid")), str(self.leash)]
        return [*leash, *ending, *super()._make_vagrant_command(args)]


class VagrantCommand:
    """The commands of Vagrant on one cluster.

    Args:
        state: where Vagrant keeps what it knows of the machines.
        log: gets all that Vagrant says. A file beside it is locked while Vagrant runs.
        variables: more of its environment.
    """

    def __init__(self, *, state: Path, log: Path, variables: Mapping[str, str]) -> None:
        self.log = log
        self._leash = log.absolute().with_name("running")
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _NOT_OURS},
            "VAGRANT_CWD": str(FOLDER),
            "VAGRANT_DOTFILE_PATH": str(state),
            "VAGRANT_HOME": str(vagrant_home()),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            **variables,
        }

    def up(self, *, deadline: float, said: Callable[[str], None]) -> None:
        """Make all machines side by side, and switch them on.

        Args:
            deadline: seconds until it is given up.
            said: gets each line that Vagrant prints.

        Raises:
            HostError: it failed, or took too long.
        """
        with self._explained("up", deadline), self._output() as (vagrant, output):
            vagrant.deadline = deadline
            # Has a name, because it waits for Vagrant's end when it goes.
            lines = vagrant.up(stream_output=True) or ()
            try:
                for line in lines:
                    plain = _CONTROLS.sub("", line).strip("\r\n")
                    if plain and not plain.startswith("Progress:"):
                        output.write(f"{time.strftime('%T')} {plain}\n")
                        output.flush()
                        said(plain)
            except BaseException:
                # It would go on making machines while we remove them.
                self.end()
                raise

    def end(self) -> None:
        """End the Vagrant that a living or dead process of ours has begun, if it still runs.

        Raises:
            HostError: it doesn't end.
        """
        if not self._leash.exists():
            return
        with self._leash.open() as leash:
            for tell, number, seconds in ((os.kill, signal.SIGINT, _ENDING), (os.killpg, signal.SIGKILL, 5)):
                if _free(leash):
                    return
                with contextlib.suppress(OSError, ValueError):
                    tell(int(self._leash.with_suffix(".pid").read_text()), number)
                deadline = time.monotonic() + seconds
                while not _free(leash) and time.monotonic() < deadline:
                    time.sleep(0.1)
            if _free(leash):
                return
        raise HostError(
            f"a Vagrant that makes these machines does not end: process {self._leash.with_suffix('.pid').read_text()}",
            hint="end it, then try again",
        )

    @contextmanager
    def _output(self) -> "Iterator[tuple[_Patient, IO[str]]]":
        with self.log.open("a") as output:

            @contextmanager
            def to_log() -> Iterator[IO[str]]:
                yield output

            vagrant = _Patient(str(FOLDER), env=self._environment, out_cm=to_log, err_cm=to_log)
            vagrant.leash = self._leash
            yield vagrant, output

    @contextmanager
    def _explained(self, command: str, deadline: float) -> Iterator[None]:
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
            said = self.log.read_text(errors="replace").splitlines()
            lines = [line for line in said if line.strip() and not line.startswith("\t")]  # no stack of Ruby's
            last = "\n  ".join(lines[-6:])
            raise HostError(f"{what}:\n  {last}", hint=f"all that it said: {self.log}") from None


def _free(leash: IO[str]) -> bool:
    """Whether nobody holds the lock of a file."""
    try:
        fcntl.flock(leash, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(leash, fcntl.LOCK_UN)
    return True
