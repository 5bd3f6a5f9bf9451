"""Whether `docker-registry` can use its bucket; if not, the reason that S3 gave.

The answers of `docker-registry` leave the reason out, and its page of health checks would be open to every container of
the node. So the reason is read from its journal.
"""

import re
import subprocess
import threading
import time
from typing import Final

from swarmer.node.registry import docker_registry

#: Seconds for which an answer of S3 is reused, however often this is asked.
_FRESH: Final = 2.0

_DETAIL: Final = re.compile(r'err\.detail="((?:\\.|[^"\\])*)"')
_LINES: Final = 50


class Bucket:
    """The bucket behind this node's `docker-registry`."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._looked = float("-inf")
        self._problem = ""

    def problem(self) -> str:
        """Why the bucket can't be used; empty when it can."""
        with self._mutex:
            if time.monotonic() - self._looked > _FRESH:
                self._problem = _look()
                self._looked = time.monotonic()
            return self._problem


def _look() -> str:
    try:
        reply = docker_registry.ask("GET", "/v2/_catalog?n=1")
    except OSError as error:
        return f"docker-registry doesn't answer: {error}"
    if reply.status == 200:
        return ""
    command = ["journalctl", "--unit=docker-registry", f"--lines={_LINES}", "--output=cat", "--no-pager"]
    journal = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10).stdout
    return f"the bucket can't be used: {reason(journal) or reply.error()}"


def reason(journal: str) -> str:
    """The last detail of an error in the journal of `docker-registry`, in one line; empty where there is none."""
    found = _DETAIL.findall(journal)
    text = found[-1].replace("\\n", " ").replace("\\t", " ").replace('\\"', '"') if found else ""
    return " ".join(text.partition("request id:")[0].split()).rstrip(", ")
