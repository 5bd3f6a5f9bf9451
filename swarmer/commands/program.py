"""A program with its arguments and environment, to be run as the rest of a command, or beside it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Program:
    """A command line and its whole environment."""

    words: Sequence[str]
    environment: Mapping[str, str]

    def replace_process(self) -> NoReturn:
        """Replace this process by the program, which inherits the terminal and determines the exit status."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvpe(self.words[0], list(self.words), dict(self.environment))

    def popen(self, **options: Any) -> "subprocess.Popen[str]":
        """Start it with text pipes; `options` are those of `Popen`."""
        return subprocess.Popen(self.words, env=dict(self.environment), text=True, errors="replace", **options)
