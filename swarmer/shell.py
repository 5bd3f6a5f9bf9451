"""Running commands on this host."""

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from swarmer.errors import HostError

log = logging.getLogger("swarmer.shell")


def which(tool: str) -> str | None:
    """The path of a program, or None. Also searches the folders of system tools, which a user's PATH may omit."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    input: str | None = None,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it is logged in a form that can be pasted into a shell.

    Args:
        command: the program and its arguments; no shell is involved.
        check: whether an exit status other than 0 is an error.
        input: its standard input.
        timeout: seconds after which the command is killed.
        env: its environment, instead of this process's. The locale is always C.UTF-8, because output is parsed.

    Raises:
        HostError: the program doesn't exist, failed (with `check`), or took too long.
    """
    words = [str(word) for word in command]
    log.debug("%s", shlex.join(words))
    environment = {**(os.environ if env is None else env), "LC_ALL": "C.UTF-8"}
    deadline = timeout
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", input=input, timeout=deadline, env=environment
        )
    except FileNotFoundError:
        raise HostError(
            f"the command {words[0]} is not installed", hint="`make setup` installs what swarmer needs"
        ) from None
    except OSError as error:
        raise HostError(f"cannot run {words[0]}: {(error.strerror or str(error)).lower()}") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"`{shlex.join(words)}` did not end within {deadline:.0f} s") from None
    if check and done.returncode:
        last_lines = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise HostError(f"`{shlex.join(words)}` failed with {done.returncode}: {' / '.join(last_lines)}")
    return done
