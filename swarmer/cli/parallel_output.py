"""Printing the output of parallel processes, each line with the name of its node in front."""

import subprocess
import threading
from collections.abc import Mapping
from typing import IO

import click


def stream_prefixed(processes: Mapping[str, "subprocess.Popen[str]"], *, width: int) -> list[str]:
    """Print the output of all processes line by line until they end.

    No process is left running when this returns or raises.

    Args:
        processes: by node name, with text pipes for standard output and standard error.
        width: of the column of node names, in characters.

    Returns:
        The processes that failed, as `NODE (STATUS)`.
    """
    one_line = threading.Lock()

    def relay(name: str, stream: IO[str], *, err: bool) -> None:
        for line in stream:
            with one_line:
                click.echo(f"{name:{width}} | {line}", nl=not line.endswith("\n"), err=err)

    relays = []
    try:
        for name, process in processes.items():
            assert process.stdout
            assert process.stderr
            for stream, err in ((process.stdout, False), (process.stderr, True)):
                relays.append(threading.Thread(target=relay, args=(name, stream), kwargs={"err": err}))
                relays[-1].start()
        return [f"{name} ({process.wait()})" for name, process in processes.items() if process.wait()]
    finally:
        for process in processes.values():
            process.kill()
        for thread in relays:
            thread.join()
