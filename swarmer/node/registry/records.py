"""What the registry has acknowledged: in consul, the same for all nodes, and changed only by the leader.

    registry/manifests/NAME@DIGEST            the manifest exists; its type, its subject, since when it may be unneeded
    registry/tags/NAME:TAG                    the digest that a tag stands for
    registry/referrers/NAME@SUBJECT/DIGEST    the manifest refers to this subject, which needn't exist
    registry/changed, registry/journal/       written with every change of these; see `journal`

The parts of a manifest aren't recorded: its content lists them, and consul takes 512 KiB at most. A push reads single
entries only, so that it costs the same however much is there.

Reads are consistent: consul's leader verifies that it still leads before it answers. A node that is cut off gets no
answer, so it never serves old state. Changes are transactions that fail when another session has taken the lock in
the meantime, however long their sender was suspended. They also fail when another change came between: consul may hold
a transaction for seconds, as during an election, while its sender has given up and tried again. A change that comes so
late must not undo what was acknowledged since.

Sources: the HTTP API of consul, `kv` and `txn`.
"""

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from swarmer.node.consul_agent import Answer, Refused
from swarmer.node.registry import journal
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.journal import CHANGED, Entry, Position
from swarmer.node.slowness import scaled

LOCK: Final = "registry/leader"
MANIFESTS: Final = "registry/manifests/"
TAGS: Final = "registry/tags/"
REFERRERS: Final = "registry/referrers/"

#: Seconds for which a read waits while consul elects its leader, before it fails.
PATIENCE: Final = scaled(6.0)
_PAUSE: Final = scaled(0.1)

#: Seconds until a read is repeated. Consul's agent sends it to the leader that it knows; if that one has just lost
#: power, no answer comes, though another server leads by then.
_READ_TIMEOUT: Final = 1.0

#: The same for all manifests, which consul may need longer for.
_LIST_TIMEOUT: Final = 20.0

#: Consul accepts 64 steps in one transaction; three of them are ours.
_STEPS: Final = 60

#: Digests of one record, which fit into a transaction several times.
MOST_UPLOADED: Final = 1000

Step = dict[str, Any]


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
        subject: the digest of the manifest that it refers to; empty if there is none.
        uploaded: digests of those of its layers that have addresses of their own, and were uploaded all the same.
        named: when it was pushed, or lost a tag, whichever was later, in seconds since 1970.
    """

    repository: str
    digest: str
    type: str
    size: int
    subject: str = ""
    uploaded: tuple[str, ...] = ()
    named: int = 0

    @property
    def key(self) -> str:
        return f"{MANIFESTS}{self.repository}@{self.digest}"

    @property
    def referrer_key(self) -> str:
        return f"{REFERRERS}{self.repository}@{self.subject}/{self.digest}"

    @classmethod
    def from_entry(cls, entry: dict[str, Any]) -> "Manifest":
        """From an entry of consul's."""
        known = {field.name for field in fields(cls)}
        # Of an earlier version of this program, a record has other fields, and lacks some.
        value: dict[str, Any] = {name: given for name, given in _value(entry).items() if name in known}
        value["uploaded"] = tuple(value.get("uploaded", ()))
        return cls(**value)


class Records:
    """Reads and changes what is acknowledged.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, agents: Agents, clock: Callable[[], float] = time.time) -> None:
        self._agents = agents
        self._clock = clock

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
        return [Manifest.from_entry(entry) for entry in self._read(MANIFESTS, "&recurse", timeout=_LIST_TIMEOUT)]

    def tags(self, repository: str) -> dict[str, str]:
        """Tag to digest, in the order of the alphabet."""
        entries = self._read(f"{TAGS}{repository}:", "&recurse")
        return {str(entry["Key"]).rpartition(":")[2]: _value(entry)["digest"] for entry in entries}

    def all_tags(self) -> dict[str, dict[str, str]]:
        """Repository to its tags, and these to their digests."""
        found: dict[str, dict[str, str]] = {}
        for entry in self._read(TAGS, "&recurse"):
            repository, _, tag = str(entry["Key"]).removeprefix(TAGS).rpartition(":")
            found.setdefault(repository, {})[tag] = _value(entry)["digest"]
        return found

    def referrers(self, repository: str, subject: str) -> list[str]:
        """The digests of the manifests that refer to a subject, in the order of the alphabet."""
        keys: list[str] = self._read(f"{REFERRERS}{repository}@{subject}/", "&keys")
        return sorted(key.rpartition("/")[2] for key in keys)

    def some(self, repository: str, digests: Sequence[str]) -> dict[str, Manifest]:
        """Those of these manifests that are acknowledged, by digest."""
        keys = [f"{MANIFESTS}{repository}@{digest}" for digest in digests]
        return {manifest.digest: manifest for manifest in self.by_key(keys).values()}

    def by_key(self, keys: Sequence[str]) -> dict[str, Manifest]:
        """Those of these manifests that are acknowledged, by the key of their record."""
        return {key: Manifest.from_entry(entry) for key, entry in self._entries(keys).items()}

    def changes(self, since: Position, until: Position) -> set[str] | None:
        """The keys of the manifests that were changed after one position up to another one.

        Returns:
            None if the journal doesn't say so; then only `manifests` tells.
        """
        numbers = journal.numbers(since, until)
        if numbers is None:
            return None
        entries = self._entries([journal.key(number) for number in numbers])
        return journal.changed(since, until, [Entry.of(entry) for entry in entries.values()])

    def _entries(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those of these entries that exist, by key."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(keys), _STEPS):
            steps = [_get(key) for key in keys[start : start + _STEPS]]
            answer = self._patiently(partial(self._agents.ask, "PUT", "txn?consistent", steps))
            found |= {result["KV"]["Key"]: result["KV"] for result in answer.json()["Results"] or ()}
        return found

    def has_repository(self, repository: str) -> bool:
        """Whether a repository holds a manifest."""
        return bool(self._read(f"{MANIFESTS}{repository}@", "&keys"))

    def repositories(self) -> list[str]:
        """Those that hold a manifest, in the order of the alphabet."""
        keys: list[str] = self._read(MANIFESTS, "&keys")
        return sorted({key.removeprefix(MANIFESTS).rpartition("@")[0] for key in keys})

    def _read(self, key: str, options: str = "", *, timeout: float = _READ_TIMEOUT) -> list[Any]:
        """Entries; waits while consul elects its leader.

        Raises:
            RegistryError: consul has no quorum that this node could ask.
        """
        path = f"kv/{quote(key, safe='/')}?consistent{options}"
        answer = self._patiently(lambda: self._agents.ask("GET", path, timeout=timeout))
        return answer.json() or [] if answer.status == 200 else []

    def has_changed(self) -> bool:
        """Whether anything was ever changed. If not, nothing was pushed, or consul has lost its state.

        Raises:
            RegistryError: consul has no quorum that this node could ask.
        """
        return bool(self._read(CHANGED))

    def check_listed(self, repository: str, digests: Sequence[str]) -> None:
        """Check that the manifests that an index lists are acknowledged.

        Raises:
            RegistryError: one isn't.
        """
        known = self.some(repository, digests)
        if missing := [digest for digest in digests if digest not in known]:
            message = f"{missing[0]}, which the index lists, does not exist"
            raise RegistryError(404, "MANIFEST_BLOB_UNKNOWN", message)

    # -- changing ------------------------------------------------------------------------------------------

    def acknowledge(self, session: str, manifest: Manifest, tag: str | None, lists: Sequence[str] = ()) -> None:
        """Make a manifest known, and let a tag stand for it.

        Args:
            lists: digests of the manifests that it lists.

        Raises:
            Fenced: the session doesn't hold the lock any more, or an earlier change came late; nothing has changed,
                since this is always one transaction.
            RegistryError: what it lists isn't acknowledged; or consul doesn't answer, and the change may have been
                made, or may still be.
        """

        def plan() -> list[Step]:
            self.check_listed(manifest.repository, lists)
            steps = [_set(manifest.key, asdict(replace(manifest, named=int(self._clock()))))]
            if manifest.subject:
                steps.append(_set(manifest.referrer_key, {}))
            if tag:
                steps += self._unnaming(manifest.repository, tag, but=manifest.digest)
                value = {"digest": manifest.digest, "type": manifest.type, "size": manifest.size}
                steps.append(_set(f"{TAGS}{manifest.repository}:{tag}", value))
            return steps

        self._change(session, plan)

    def forget_tag(self, session: str, repository: str, tag: str) -> None:
        """Remove a tag.

        Raises:
            Fenced, RegistryError: as `acknowledge`.
        """
        self._change(session, lambda: [*self._unnaming(repository, tag, but=""), _delete(f"{TAGS}{repository}:{tag}")])

    def forget(self, session: str, repository: str, digest: str) -> None:
        """Remove a manifest, and before it every tag that stands for it.

        Raises:
            Fenced: as `acknowledge`; but of very many tags, some may be gone. The manifest and the other tags are still
                there, and the same call again removes them.
            RegistryError: as `acknowledge`.
        """

        def plan() -> list[Step]:
            tags = [tag for tag, found in self.tags(repository).items() if found == digest]
            steps = [_delete(f"{TAGS}{repository}:{tag}") for tag in tags]
            # Also if there is no such manifest: an earlier push of it may still come, and must fail.
            manifest = self.manifest(repository, digest) or Manifest(repository, digest, "", 0)
            return [*steps, *_deletion(manifest)]

        self._change(session, plan)

    def forget_some(
        self, session: str, choose: Callable[[list[Manifest], Mapping[str, Mapping[str, str]]], Sequence[Manifest]]
    ) -> int:
        """Remove manifests that have no tags; their number.

        Args:
            choose: is given all manifests and all tags, and returns those to remove, the first ones first. Nothing
                changes meanwhile: if it does, consul refuses the removal.

        Raises:
            Fenced: as `acknowledge`; some may be gone.
            RegistryError: as `acknowledge`.
        """
        chosen: list[Manifest] = []

        def plan() -> list[Step]:
            chosen.extend(choose(self.manifests(), self.all_tags()))
            return [step for manifest in chosen for step in _deletion(manifest)]

        self._change(session, plan)
        return len(chosen)

    def _unnaming(self, repository: str, tag: str, *, but: str) -> list[Step]:
        """Record that the manifest for which a tag stands loses this tag, unless it is this one."""
        former = self.digest_of(repository, tag)
        manifest = self.manifest(repository, former) if former and former != but else None
        return [_set(manifest.key, asdict(replace(manifest, named=int(self._clock()))))] if manifest else []

    def _change(self, session: str, plan: Callable[[], Sequence[Step]]) -> None:
        """Carry out the steps that `plan` makes of what it reads, unless anything was changed since it began."""
        held = {"KV": {"Verb": "check-session", "Key": LOCK, "Session": session}}
        last = self._read(CHANGED)
        index = last[0]["ModifyIndex"] if last else 0
        at = Position.of(last[0]) if last else Position()
        steps = plan()
        for start in range(0, len(steps), _STEPS):
            batch = steps[start : start + _STEPS]
            before, at = at, at.next()
            turn = {"KV": {"Verb": "cas", "Key": CHANGED, "Index": index, "Value": _encoded(asdict(at))}}
            keys = tuple(key for step in batch if (key := step["KV"]["Key"]).startswith(MANIFESTS))
            entry = Entry(at.number, at.id, before.id, keys)
            batch = [held, turn, _set(entry.key, entry.value), *batch]
            try:
                answer = self._agents.ask("PUT", "txn", batch)
            except Refused as refused:
                raise unavailable(f"consul did not confirm the change, which may still happen: {refused}") from refused
            text = answer.text.decode(errors="replace")
            if answer.status == 409:
                raise Fenced(text)
            if answer.status == 413:
                raise RegistryError(413, "SIZE_INVALID", f"consul can't record so much: {text}")
            if answer.status != 200:
                raise unavailable(f"consul could not record it: {text}")
            index = next(each["KV"]["ModifyIndex"] for each in answer.json()["Results"] if each["KV"]["Key"] == CHANGED)

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


def _value(entry: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(entry["Value"]))


def _deletion(manifest: Manifest) -> list[Step]:
    return [_delete(manifest.key), *([_delete(manifest.referrer_key)] if manifest.subject else [])]


def _get(key: str) -> Step:
    """Not the verb `get`, which fails when there is no such entry; no other key begins with this one."""
    return {"KV": {"Verb": "get-tree", "Key": key}}


def _set(key: str, value: object) -> Step:
    return {"KV": {"Verb": "set", "Key": key, "Value": _encoded(value)}}


def _encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _delete(key: str) -> Step:
    return {"KV": {"Verb": "delete", "Key": key}}
