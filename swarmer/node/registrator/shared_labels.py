"""Labels of swarm services, which managers share with the nodes that run the tasks.

A worker can't ask its docker engine for a service, and tasks don't carry the labels of their service. So managers keep
them in consul's key-value store, one key per service, and every node watches that prefix. The watch also detects that
the consul agent was away: it breaks and works again.
"""

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from swarmer.node.consul_agent import Agent, Answer, Refused, Silent
from swarmer.node.registrator.swarm_services import SwarmService, announced_labels
from swarmer.node.registrator.wakeups import Backoff, Changes, Lasting, Wakeups
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

PREFIX: Final = "registrator/swarm/"

#: Seconds until the next try where the token may not read the prefix.
FORBIDDEN_PAUSE: Final = scaled(5.0)

#: The status of a refusal for lack of rights.
FORBIDDEN: Final = 403

#: Consul's refusal of a token that it doesn't know, or not yet. It may have no rights, or many.
UNKNOWN_TOKEN: Final = "ACL not found"

#: Seconds for which docker's lists have to lack a service before its entry is deleted. There is no hurry: no other
#: service ever gets its ID.
MISSED: Final = scaled(60.0)


@dataclass(frozen=True)
class Entry:
    """The labels of a service, and the `ModifyIndex` of where they are kept."""

    labels: Mapping[str, str]
    index: int


class LabelWatch(threading.Thread):
    """Follows the labels in the key-value store, on a connection of its own.

    Attributes:
        entries: service ID to its entry; None until the store was read once.
        forbidden: whether consul refused to let the token read the store.
    """

    def __init__(self, agent: Agent, wakeups: Wakeups) -> None:
        """Begin without labels.

        Args:
            agent: for the watch alone: it waits for an answer most of the time.
        """
        super().__init__(name="labels", daemon=True)
        self.agent = agent
        self.wakeups = wakeups
        self.entries: Mapping[str, Entry] | None = None
        self.forbidden = False

    @property
    def unread(self) -> bool:
        """Whether the store may hold labels that this node can read, and hasn't read yet."""
        return self.entries is None and not self.forbidden

    @property
    def labels(self) -> dict[str, Mapping[str, str]]:
        """Service ID to labels."""
        return {identity: entry.labels for identity, entry in (self.entries or {}).items()}

    def run(self) -> None:
        away, backoff = False, Backoff()
        watch = self.agent.watch(f"kv/{PREFIX}?recurse")
        while True:
            try:
                changed = self._take(watch.next())
                backoff.reset()
                if changed or away:
                    self.wakeups.report(Changes(consul=True))
                away = False
            except Refused as refused:
                if refused.status == FORBIDDEN:
                    self._take_refusal(str(refused))
                    time.sleep(FORBIDDEN_PAUSE)
                else:
                    away = True
                    time.sleep(backoff.next())

    def _take(self, answer: Answer) -> bool:
        """Whether the labels differ from before, or are known for the first time."""
        unread, before = self.entries is None, self.labels
        entries: list[dict[str, Any]] = answer.json() if answer.status == 200 else []
        self.entries = {
            entry["Key"].removeprefix(PREFIX): Entry(decode_labels(entry["Value"]), entry["ModifyIndex"])
            for entry in entries
        }
        return unread or self.labels != before

    def _take_refusal(self, text: str) -> None:
        if not self.forbidden and UNKNOWN_TOKEN not in text:
            logger.warning("labels of swarm services can't be read: %s", text)
            self.forbidden = True
            self.wakeups.report(Changes(consul=True))


class Sharer:
    """Writes the labels that a watch doesn't show yet."""

    def __init__(self, watch: LabelWatch, agent: Agent, token: str | None) -> None:
        """Prepare; nothing is written yet.

        Args:
            agent: of the thread that shares.
            token: by which the store may be written; None not to share any.
        """
        self.watch = watch
        self.agent = agent
        self.token = token
        self._missed = Lasting(MISSED)
        self._refusal = ""

    def interrupt(self) -> None:
        """Docker has listed no services: what was missing before may have existed meanwhile."""
        self._missed.look(())

    def share(self, services: Iterable[SwarmService], entries: Mapping[str, Entry] | None) -> bool:
        """Make the store hold the labels of exactly these services; whether the watch showed that it does.

        Written is only over what the watch showed before docker was asked: what another manager wrote later is newer
        than docker's answer.

        Args:
            entries: what the watch showed then.

        Raises:
            Silent: consul doesn't answer.
        """
        if self.token is None:
            return True
        if entries is None:
            return False
        found = {service["ID"]: announced_labels(service) for service in services}
        # The entry of a service that lost its labels stays, without any: it is deleted after the end of the service.
        wanted = {identity: labels for identity, labels in found.items() if labels or identity in entries}
        missing = {
            identity: labels
            for identity, labels in wanted.items()
            if identity not in entries or entries[identity].labels != labels
        }
        gone = set(entries) - set(wanted)
        long_gone = self._missed.look(gone)
        try:
            for identity, labels in missing.items():
                index = entries[identity].index if identity in entries else 0
                content = json.dumps(labels, sort_keys=True).encode()
                self.agent.call("PUT", f"kv/{PREFIX}{identity}?cas={index}", content, token=self.token)
            for identity in long_gone:
                self.agent.call("DELETE", f"kv/{PREFIX}{identity}?cas={entries[identity].index}", token=self.token)
        except Silent:
            raise
        except Refused as refused:
            if self._refusal != str(refused):
                logger.error("labels of swarm services can't be shared: %s", refused)
            self._refusal = str(refused)
            return False
        self._refusal = ""
        return not missing and not gone


def decode_labels(value: str | None) -> dict[str, str]:
    """The labels in an entry, as consul shows its value; none when it holds something else."""
    try:
        labels = json.loads(base64.b64decode(value or "") or b"{}")
    except ValueError:
        return {}
    if not isinstance(labels, dict):
        return {}
    return {str(key): text for key, text in labels.items() if isinstance(text, str)}
