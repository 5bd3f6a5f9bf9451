"""The registrator as a program: `python3 -m swarmer.node.registrator [options] consul-tls://127.0.0.1:8500`."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from swarmer.node.consul_agent import Refused
from swarmer.node.registrator.catalog import connect
from swarmer.node.registrator.command_line import UsageError, parse
from swarmer.node.registrator.watcher import Registrator


def main(arguments: list[str]) -> int:
    """Run until a signal ends it. The exit status is 2 for an invalid command line, 1 for any other error."""
    # systemd's journal adds time and name itself.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        options = parse(arguments)
    except UsageError as error:
        print(f"registrator: {error}\n`registrator -h` lists the options", file=sys.stderr)
        return 2
    # What is registered stays registered: the next run takes over where this one ends.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.excepthook = _end
    try:
        registrator = Registrator(options, lambda: connect(options.consul))
        registrator.start()
        if folder := os.environ.get("RUNTIME_DIRECTORY"):
            registrator.forget_stale_services(Path(folder))
        registrator.run()
    except Refused as error:
        logging.error("cannot reach consul at %r: %s", options.consul, error)
        return 1
    except KeyboardInterrupt:
        return 0
    except Exception:
        logging.exception("unexpected error")
    return 1


def _end(error: threading.ExceptHookArgs) -> None:
    """End the program when a thread ends by an error: systemd restarts it with all threads."""
    logging.error("%s ended", error.thread and error.thread.name, exc_info=error.exc_value)
    os._exit(1)


if __name__ == "__main__":
    # Not sys.exit, which waits for the commands that still run.
    os._exit(main(sys.argv[1:]))
