"""Running commands on this host."""

import logging
import os
import select
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from swarmer import interrupts
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
        done = capture(words, input=input, timeout=deadline, env=environment)
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


def capture(
    command: Sequence[str | Path], *, timeout: float, input: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end like `subprocess.run`, but an interrupt kills it.

    Args:
        timeout: seconds after which it is killed.
        options: those of `Popen`; by default, its output is captured as text.

    Raises:
        subprocess.TimeoutExpired, OSError: as `subprocess.run`.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    if input is not None:
        options["stdin"] = subprocess.PIPE
    # While things are being undone, Ctrl-C must not reach the command either: a session of its own has no terminal.
    session = interrupts.is_shielded()
    with subprocess.Popen(command, text=True, errors="replace", start_new_session=session, **options) as process:
        stdout, stderr = communicate(process, timeout=timeout, input=input)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def communicate(process: "subprocess.Popen[str]", *, timeout: float, input: str | None = None) -> tuple[str, str]:
    """Like `Popen.communicate`, but whatever ends the wait, an interrupt included, also kills the process.

    Raises:
        subprocess.TimeoutExpired: it did not end within `timeout` seconds; has what it printed until then, as bytes.
    """
    expired: subprocess.TimeoutExpired | None = None
    try:
        for part in interrupts.parts(timeout):
            try:
                output = process.communicate(input, timeout=part)
            except subprocess.TimeoutExpired as error:
                input, expired = None, error
            else:
                interrupts.check()  # Ctrl-C ends the process as well: its failure isn't the news
                return output
        assert expired
        raise expired
    except BaseException:
        process.kill()
        raise


def lines(pipe: IO[bytes], *, silence: float) -> Iterator[str]:
    """The lines of an unbuffered pipe as they arrive, until its end.

    Args:
        silence: the longest time in seconds without anything new.

    Raises:
        TimeoutError: nothing arrived for longer than that.
    """
    rest = b""
    while chunk := _next(pipe, silence):
        *whole, rest = (rest + chunk.replace(b"\r", b"\n")).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _next(pipe: IO[bytes], silence: float) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    for part in interrupts.parts(silence):
        if poll.poll(part * 1000):
            return os.read(pipe.fileno(), 65536)
    raise TimeoutError(f"nothing arrived for {silence:.0f} s")
