"""The forwarder of this node (`registry-forwarder.service`), through which requests go that only the leader can answer.

A leader that hangs never answers these, and nginx would wait as long as the client does. So when a node learns that the
leadership has ended, it ends the requests that still wait for that leader: their clients get 503, and may try again.
None of them can change anything any more: that needs the session that held the lock when the request began.
"""

import logging
import subprocess
import threading
from typing import Final

logger = logging.getLogger(__name__)

UNIT: Final = "registry-forwarder.service"

#: Seconds within which systemd must have passed the signal on.
_TIMEOUT: Final = 30.0


class Forwarder:
    """Ends the requests in the forwarder, in a thread of its own: the thread that leads can't wait for systemd."""

    def __init__(self) -> None:
        self._wanted = threading.Event()

    def end_requests(self) -> None:
        """End the requests under way, within about a second; later ones are passed on. Returns immediately."""
        self._wanted.set()

    def run(self) -> None:
        """End requests whenever that was asked for. Never returns."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                subprocess.run(["systemctl", "reload", UNIT], check=True, capture_output=True, timeout=_TIMEOUT)
                logger.info("ended the requests that waited for the former leader")
            except (OSError, subprocess.SubprocessError) as error:
                logger.warning("can't end the requests that wait for the former leader: %s", error)
