"""Labels of swarm services, handed by managers to the nodes that run the tasks.

A worker can't ask its docker engine for a service, and tasks don't carry the labels of theirs. So managers keep
them in consul's key-value store, one key per service; every node watches that prefix. The watch is at the same
time the sign of life of the consul agent: when it breaks and works again, the agent was away.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import consul

from swarmer.node.patience import patient
from swarmer.node.registrator.catalog import UNREACHABLE, Unreachable
from swarmer.node.registrator.signals import Backoff, Changes, Signals
from swarmer.node.registrator.swarm import SwarmService, announced_labels

logger = logging.getLogger(__name__)

PREFIX: Final = "registrator/swarm/"

#: How long a watch may go unanswered, in consul's notation.
WAIT: Final = "60s"

#: Seconds until the next try where the token may not read the prefix.
FORBIDDEN_PAUSE: Final = patient(5.0)


class LabelWatch(threading.Thread):
    """Keeps labels like the key-value store, on a connection of its own.

    Attributes:
        labels: service ID to labels.
        indexes: service ID to the `ModifyIndex` of its entry.
        ready: whether the store was read once.
    """

    def __init__(self, client: Any, writer: Any, signals: Signals) -> None:
        """Begin with no labels.

        Args:
            client: for the watch alone: it waits for an answer most of the time.
            writer: of the thread that publishes.
        """
        super().__init__(name="labels", daemon=True)
        self.client = client
        self.writer = writer
        self.signals = signals
        self.labels: Mapping[str, Mapping[str, str]] = {}
        self.indexes: Mapping[str, int] = {}
        self.ready = False

    def run(self) -> None:
        index, away, warned, backoff = None, False, False, Backoff()
        while True:
            try:
                fresh, entries = self.client.kv.get(PREFIX, recurse=True, index=index, wait=WAIT)
                backoff.reset()
                # An index that goes back means a restored state: begin anew.
                index = None if index is not None and int(fresh) < int(index) else fresh
                changed = self._take(entries or ())
                if changed or away:
                    self.signals.report(Changes(consul=True))
                away = False
            except consul.ACLPermissionDenied as error:
                index = None
                if not warned:
                    logger.warning("labels of swarm services can't be read: %s", error)
                warned = True
                time.sleep(FORBIDDEN_PAUSE)
            except (*UNREACHABLE, consul.ConsulException):
                index, away = None, True
                time.sleep(backoff.next())

    def _take(self, entries: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the entries differ from before."""
        labels, indexes = {}, {}
        for entry in entries:
            identity = entry["Key"].removeprefix(PREFIX)
            indexes[identity] = entry["ModifyIndex"]
            labels[identity] = decoded(entry["Value"])
        changed = labels != self.labels
        self.labels, self.indexes, self.ready = labels, indexes, True
        return changed

    def publish(self, services: Iterable[SwarmService], token: str) -> None:
        """Make the store hold the labels of exactly these services. Writes nothing before it was read once.

        Args:
            token: by which the store may be written.

        Raises:
            Unreachable: consul didn't answer.
        """
        if not self.ready:
            return
        wanted = {service["ID"]: labels for service in services if (labels := announced_labels(service))}
        try:
            for identity, labels in wanted.items():
                if self.labels.get(identity) != labels:
                    self.writer.kv.put(PREFIX + identity, json.dumps(labels, sort_keys=True), token=token)
            for identity in set(self.labels) - set(wanted):
                # Only the entry that we saw: another manager may know more than we do.
                self.writer.kv.delete(PREFIX + identity, cas=self.indexes[identity], token=token)
        except UNREACHABLE as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        except consul.ConsulException as error:
            logger.error("labels of swarm services can't be shared: %s", error)


def decoded(value: bytes | None) -> dict[str, str]:
    """The labels in an entry; none when it holds something else."""
    try:
        labels = json.loads(value or b"{}")
    except ValueError:
        return {}
    if not isinstance(labels, dict):
        return {}
    return {str(key): text for key, text in labels.items() if isinstance(text, str)}
