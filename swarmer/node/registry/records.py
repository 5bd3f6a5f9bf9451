"""What the registry has acknowledged: in consul, the same for all nodes, and changed only by the leader.

    registry/manifests/NAME@DIGEST    the manifest exists; its type and its parts
    registry/tags/NAME:TAG            the digest that a tag stands for
    registry/changed                  written with every change of these

Reads are consistent: consul's leader verifies that it still leads before it answers. A node that is cut off gets no
answer, so it never serves old state. Changes are transactions that fail when another session has taken the lock in
the meantime, however long their sender was suspended. They also fail when another change came between: consul may hold
a transaction for seconds, as during an election, while its sender has given up and tried again. A change that comes so
late must not undo what was acknowledged since.

Sources: the HTTP API of consul, `kv` and `txn`.
"""

import base64
import json
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote

from swarmer.node.consul_agent import Agent, Answer, Refused, own_token
from swarmer.node.registry.errors import unavailable
from swarmer.node.slowness import scaled

LOCK: Final = "registry/leader"
MANIFESTS: Final = "registry/manifests/"
TAGS: Final = "registry/tags/"
_CHANGED: Final = "registry/changed"

#: Seconds for which a read waits while consul elects its leader, before it fails.
PATIENCE: Final = scaled(6.0)
_PAUSE: Final = scaled(0.1)

#: Seconds until a read is repeated. Consul's agent sends it to the leader that it knows; if that one has just lost
#: power, no answer comes, though another server leads by then.
_READ_TIMEOUT: Final = 1.0

#: Connections to consul that are kept open. It accepts 200 from all programs of a node, and closes none by itself.
_IDLE: Final = 16

#: Consul accepts 64 steps in one transaction; two of them are ours.
_STEPS: Final = 60


class Fenced(Exception):
    """The lock isn't held by the session that the change was made for, or another change came between.

    Consul carries out a transaction as a whole or not at all, and nothing of this one. A change of more than `_STEPS`
    steps takes several: those before this one stay.
    """


@dataclass(frozen=True)
class Manifest:
    """An acknowledged manifest.

    Attributes:
        repository: that it is in.
        type: its media type.
        size: in bytes.
        blobs: digests of the configuration and the layers.
        manifests: digests of the manifests that an index lists.
    """

    repository: str
    digest: str
    type: str
    size: int
    blobs: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{MANIFESTS}{self.repository}@{self.digest}"

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> "Manifest":
        """From an entry of consul's."""
        value = json.loads(base64.b64decode(entry["Value"]))
        return cls(**value | {"blobs": tuple(value["blobs"]), "manifests": tuple(value["manifests"])})


class Agents:
    """Connections to the node's consul agent, for any number of threads."""

    def __init__(self, *, timeout: float = 3) -> None:
        self._timeout = timeout
        self._idle: queue.LifoQueue[Agent] = queue.LifoQueue(_IDLE)
        #: When consul last answered what only a quorum can; at first, when this began.
        self.contact = time.monotonic()

    @contextmanager
    def one(self) -> Iterator[Agent]:
        """A connection for the calling thread alone."""
        try:
            agent = self._idle.get_nowait()
        except queue.Empty:
            agent = Agent(own_token("registry"), timeout=self._timeout)
        try:
            yield agent
        finally:
            try:
                self._idle.put_nowait(agent)
            except queue.Full:
                agent.close()

    def ask(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> Answer:
        """As `Agent.ask`."""
        with self.one() as agent:
            return agent.ask(method, path, body, timeout=timeout)


class Records:
    """Reads and changes what is acknowledged."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    # -- reading -------------------------------------------------------------------------------------------

    def digest_of(self, repository: str, tag: str) -> str | None:
        """The digest that a tag stands for, None when there is no such tag."""
        entries = self._read(f"{TAGS}{repository}:{tag}")
        return _value(entries[0])["digest"] if entries else None

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        """An acknowledged manifest, None when there is none."""
        entries = self._read(f"{MANIFESTS}{repository}@{digest}")
        return Manifest.from_entry(entries[0]) if entries else None

    def manifests(self) -> list[Manifest]:
        """All acknowledged manifests."""
        return [Manifest.from_entry(entry) for entry in self._read(MANIFESTS, "&recurse")]

    def tags(self, repository: str) -> dict[str, str]:
        """Tag to digest, in the order of the alphabet."""
        entries = self._read(f"{TAGS}{repository}:", "&recurse")
        return {str(entry["Key"]).rpartition(":")[2]: _value(entry)["digest"] for entry in entries}

    def repositories(self) -> list[str]:
        """Those that hold a manifest, in the order of the alphabet."""
        keys: list[str] = self._read(MANIFESTS, "&keys")
        return sorted({key.removeprefix(MANIFESTS).rpartition("@")[0] for key in keys})

    def _read(self, key: str, options: str = "") -> list[Any]:
        """Entries; waits while consul elects its leader.

        Raises:
            RegistryError: consul has no quorum that this node could ask.
        """
        path = f"kv/{quote(key, safe='/')}?consistent{options}"
        answer = self._patiently(lambda: self._agents.ask("GET", path, timeout=_READ_TIMEOUT))
        return answer.json() or [] if answer.status == 200 else []

    def has_changed(self) -> bool:
        """Whether anything was ever changed. If not, nothing was pushed, or consul has lost its state.

        Raises:
            RegistryError: consul has no quorum that this node could ask.
        """
        return bool(self._read(_CHANGED))

    # -- changing ------------------------------------------------------------------------------------------

    def acknowledge(self, session: str, manifest: Manifest, tag: str | None) -> None:
        """Make a manifest known, and let a tag stand for it.

        Raises:
            Fenced: the session doesn't hold the lock any more, or an earlier change came late; nothing has changed,
                since this is always one transaction.
            RegistryError: consul doesn't answer; the change may have been made, or may still be.
        """
        steps = [_set(manifest.key, {**asdict(manifest)})]
        if tag:
            key = f"{TAGS}{manifest.repository}:{tag}"
            steps.append(_set(key, {"digest": manifest.digest, "type": manifest.type, "size": manifest.size}))
        self._change(session, steps)

    def forget_tag(self, session: str, repository: str, tag: str) -> None:
        """Remove a tag.

        Raises:
            Fenced, RegistryError: as `acknowledge`.
        """
        self._change(session, [_delete(f"{TAGS}{repository}:{tag}")])

    def forget(self, session: str, repository: str, digest: str) -> None:
        """Remove a manifest, and before it every tag that stands for it.

        Raises:
            Fenced: as `acknowledge`; but of very many tags, some may be gone. The manifest and the other tags are still
                there, and the same call again removes them.
            RegistryError: as `acknowledge`.
        """
        tags = [tag for tag, found in self.tags(repository).items() if found == digest]
        steps = [_delete(f"{TAGS}{repository}:{tag}") for tag in tags]
        self._change(session, [*steps, _delete(f"{MANIFESTS}{repository}@{digest}")])

    def _change(self, session: str, steps: Sequence[dict[str, Any]]) -> None:
        held = {"KV": {"Verb": "check-session", "Key": LOCK, "Session": session}}
        for start in range(0, len(steps), _STEPS):
            last = self._read(_CHANGED)
            turn = {"KV": {"Verb": "cas", "Key": _CHANGED, "Index": last[0]["ModifyIndex"] if last else 0, "Value": ""}}
            batch = [held, turn, *steps[start : start + _STEPS]]
            try:
                answer = self._agents.ask("PUT", "txn", batch)
            except Refused as refused:
                raise unavailable(f"consul did not confirm the change, which may still happen: {refused}") from refused
            if answer.status == 409:
                raise Fenced(answer.text.decode(errors="replace"))
            if answer.status != 200:
                raise unavailable(f"consul could not record it: {answer.text.decode(errors='replace')}")

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        # A node that has been cut off for that long fails immediately.
        deadline = max(self._agents.contact, time.monotonic() - PATIENCE / 2) + PATIENCE
        while True:
            try:
                answer = ask()
                if answer.status in (200, 404):
                    self._agents.contact = time.monotonic()
                    return answer
                last = f"{answer.status} {answer.text.decode(errors='replace')}"
            except Refused as refused:
                last = str(refused)
            if time.monotonic() >= deadline:
                raise unavailable(f"this node can't ask consul what is acknowledged: {last}; try again")
            time.sleep(_PAUSE)


def next_index(answer: Answer, index: int) -> int:
    """The index for the next question that waits for news, after one with `index`.

    It is 0, to which consul answers without waiting, when the index went back: a snapshot was restored.
    Source: consul's page on blocking queries.
    """
    return answer.index if answer.index >= index else 0


def _value(entry: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(entry["Value"]))


def _set(key: str, value: object) -> dict[str, Any]:
    content = base64.b64encode(json.dumps(value).encode()).decode()
    return {"KV": {"Verb": "set", "Key": key, "Value": content}}


def _delete(key: str) -> dict[str, Any]:
    return {"KV": {"Verb": "delete", "Key": key}}
