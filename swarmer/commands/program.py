"""A program with its arguments and environment, to be run as the rest of a command, or beside it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from swarmer import signals


@dataclass(frozen=True)
class Program:
    """A command line and its whole environment."""

    words: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def here(cls, words: Sequence[str]) -> "Program":
        """A command line with the environment of this process."""
        return cls(words, dict(os.environ))

    def replace_process(self) -> NoReturn:
        """Replace this process by the program, which inherits the terminal and determines the exit status."""
        sys.stdout.flush()
        sys.stderr.flush()
        with signals.default_actions():
            # Python ignores SIGPIPE, and what is ignored stays so: the program would report `head` as an error.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvpe(self.words[0], list(self.words), dict(self.environment))

    def popen(self, **options: Any) -> "subprocess.Popen[str]":
        """Start it with text pipes; `options` are those of `Popen`."""
        return subprocess.Popen(self.words, env=dict(self.environment), text=True, errors="replace", **options)
