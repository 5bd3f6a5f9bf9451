"""Whether `docker-registry` can use its bucket, and in S3's own words why not.

Its answers leave the reason out, and its page of health checks would be open to every container of the node. Its
journal has the reason.
"""

import re
import subprocess
import threading
import time
from typing import Final

from swarmer.node.registry import docker_registry

#: Seconds that a look is good for: S3 is asked no more often, whoever asks us.
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
        """Empty when the bucket can be used; else why it can't."""
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
    said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10).stdout
    return f"the bucket can't be used: {reason(said) or reply.error()}"


def reason(journal: str) -> str:
    """The last detail of an error in the journal of `docker-registry`, in one line; empty where there is none."""
    found = _DETAIL.findall(journal)
    text = found[-1].replace("\\n", " ").replace("\\t", " ").replace('\\"', '"') if found else ""
    return " ".join(text.partition("request id:")[0].split()).rstrip(", ")
