"""Printing the output of parallel processes, each line with the name of its node in front."""

import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO

import click

from swarmer.commands.program import Program
from swarmer.pool import Pool


def stream_prefixed(programs: Mapping[str, Program], *, width: int) -> list[str]:
    """Run programs, and print the output of all of them line by line until they end.

    None is left running when this returns or raises: a signal, or a closed standard output, ends all of them.

    Args:
        programs: by node name.
        width: of the column of node names, in characters.

    Returns:
        The programs that failed, as `NODE (STATUS)`.
    """
    one_line = threading.Lock()

    def relay(name: str, stream: IO[str], *, err: bool) -> None:
        with stream:
            for line in stream:
                with one_line:
                    click.echo(f"{name:{width}} | {line}", nl=not line.endswith("\n"), err=err)

    with Pool(2 * len(programs)) as pool, ExitStack() as killing:
        relays, processes = [], {}
        for name, program in programs.items():
            process = processes[name] = program.popen(
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            killing.callback(_kill, process)  # which ends its relays, too
            assert process.stdout
            assert process.stderr
            relays.append(pool.submit(relay, name, process.stdout, err=False))
            relays.append(pool.submit(relay, name, process.stderr, err=True))
        pool.results(relays)
        # A program may close its output before it ends.
        statuses = pool.map(lambda process: process.wait(), processes.values())
    return [f"{name} ({status})" for name, status in zip(processes, statuses, strict=True) if status]


def _kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
