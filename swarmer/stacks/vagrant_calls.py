"""Vagrant, by way of python-vagrant: every call has a deadline, a log, and a failure that is a sentence."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from swarmer.errors import HostError
from swarmer.image.recipe import REPOSITORY
from swarmer.state import cache_home
from vagrant import Vagrant

#: What Vagrant moves the cursor with, also when nobody sees it.
_CONTROLS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

FOLDER = REPOSITORY / "vagrant"


class _Patient(Vagrant):  # type: ignore[misc,unused-ignore]
    """A Vagrant whose commands are ended when they take too long."""

    deadline: float = 60

    def _make_vagrant_command(self, args: Sequence[str | None]) -> list[str]:
        # SIGINT first: Vagrant then removes what it has half made.
        ending = ["timeout", "--foreground", "--signal=INT", "--kill-after=30", str(int(self.deadline))]
        return [*ending, *super()._make_vagrant_command(args)]


class VagrantCalls:
    """The commands of Vagrant on one cluster.

    Args:
        state: where Vagrant keeps what it knows of the machines.
        log: gets all that Vagrant says.
        variables: more of its environment.
    """

    def __init__(self, *, state: Path, log: Path, variables: Mapping[str, str]) -> None:
        self.log = log
        self._environment = {
            **os.environ,
            "VAGRANT_DOTFILE_PATH": str(state),
            "VAGRANT_HOME": str(cache_home() / "vagrant"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            **variables,
        }

    def up(self, *, deadline: float, said: Callable[[str], None]) -> None:
        """Make all machines side by side, and wait until each lets us in.

        Args:
            deadline: seconds until it is given up.
            said: gets each line that Vagrant prints.

        Raises:
            HostError: it failed, or took too long.
        """
        with self._explained("up", deadline), self._output() as (vagrant, output):
            vagrant.deadline = deadline
            for line in vagrant.up(stream_output=True) or ():
                plain = _CONTROLS.sub("", line).strip("\r\n")
                if plain and not plain.startswith("Progress:"):
                    output.write(f"{time.strftime('%T')} {plain}\n")
                    output.flush()
                    said(plain)

    @contextmanager
    def _output(self) -> "Iterator[tuple[_Patient, IO[str]]]":
        with self.log.open("a") as output:

            @contextmanager
            def to_log() -> Iterator[IO[str]]:
                yield output

            yield _Patient(str(FOLDER), env=self._environment, out_cm=to_log, err_cm=to_log), output

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
