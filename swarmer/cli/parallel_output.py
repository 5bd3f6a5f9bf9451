"""Processes of several nodes side by side, each line of theirs marked by its node."""

import subprocess
import threading
from collections.abc import Mapping
from typing import IO

import click


def stream_prefixed(processes: Mapping[str, "subprocess.Popen[str]"], *, width: int) -> list[str]:
    """Print what they say as it comes, to their end; those that failed, as `NODE (STATUS)`.

    Whatever goes wrong, none of them is left running.

    Args:
        processes: by the name of their node, with text pipes for what they print.
        width: of the names' column.
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
