"""The forwarder of this node (`registry-forwarder.service`), by which requests go that only the leader can answer.

A leader that hangs never answers what it was sent, and only its client would give that up. So whoever learns that
the leadership has ended ends the requests that still wait for it: their clients get 503, and may ask the next leader.
None of these could succeed any more, since a change needs the session that held the lock when it began.
"""

import logging
import subprocess
import threading
from typing import Final

logger = logging.getLogger(__name__)

UNIT: Final = "registry-forwarder.service"

#: Seconds that systemd may take to pass the signal on.
_TIMEOUT: Final = 30.0


class Forwarder:
    """Ends the requests in the forwarder, from a thread of its own: whoever learns of a change has no time to wait."""

    def __init__(self) -> None:
        self._wanted = threading.Event()

    def end_requests(self) -> None:
        """End those under way within a second or so; those that come later are passed on."""
        self._wanted.set()

    def run(self) -> None:
        """Do it whenever it is wanted. Never ends."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                subprocess.run(["systemctl", "reload", UNIT], check=True, capture_output=True, timeout=_TIMEOUT)
                logger.info("ended the requests to the former leader")
            except (OSError, subprocess.SubprocessError) as error:
                logger.warning("requests to the former leader can't be ended: %s", error)
