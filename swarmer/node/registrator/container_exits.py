"""Detects the end of a container by its process: docker reports it only after it has cleaned up."""

import logging
import os
import select
import threading
from collections.abc import Mapping

from swarmer.node.registrator.wakeups import Changes, Wakeups

logger = logging.getLogger(__name__)


class ContainerExits(threading.Thread):
    """Watches the first process of each container of this machine."""

    def __init__(self, wakeups: Wakeups) -> None:
        super().__init__(name="exits", daemon=True)
        self.wakeups = wakeups
        self._poll = select.epoll()
        self._lock = threading.Lock()
        self._watched: dict[str, tuple[int, int]] = {}
        self._containers: dict[int, str] = {}

    def follow(self, processes: Mapping[str, int]) -> None:
        """Watch exactly these processes from now on: container ID to process ID."""
        with self._lock:
            for identity, (pid, _) in list(self._watched.items()):
                if processes.get(identity) != pid:
                    self._drop(identity)
            for identity, pid in processes.items():
                if identity not in self._watched:
                    self._watch(identity, pid)

    def run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                with self._lock:
                    identity = self._containers.get(descriptor)
                    if identity is None:
                        continue
                    self._drop(identity)
                self.wakeups.report(Changes(ended={identity}))

    def _watch(self, identity: str, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            # Gone between docker's answer and now.
            self.wakeups.report(Changes(ended={identity}))
            return
        except OSError as error:
            # An old kernel, or no descriptors left: docker's own event comes later, but it comes.
            logger.debug("process %s is not watched: %s", pid, error)
            return
        self._watched[identity] = (pid, descriptor)
        self._containers[descriptor] = identity
        self._poll.register(descriptor, select.EPOLLIN)

    def _drop(self, identity: str) -> None:
        _, descriptor = self._watched.pop(identity)
        del self._containers[descriptor]
        self._poll.unregister(descriptor)
        os.close(descriptor)
