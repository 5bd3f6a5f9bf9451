"""What this node has of everything that is acknowledged, and fetching what it lacks.

It looks at everything once, when it begins, and from then on at what the journal says was changed: a push costs what
it brings, not what there is. Beside that it looks at everything again, slowly, one manifest after the other, for
content that was lost from this disk.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NoReturn

from swarmer.node.consul_agent import Agent, Refused, own_token
from swarmer.node.registry import contents, disk, manifests
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.journal import CHANGED, Position
from swarmer.node.registry.records import Manifest, Records
from swarmer.node.registry.replication import Replication
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

#: Seconds between two tries to fetch what this node lacks.
_PAUSE: Final = scaled(0.5)

#: Seconds between two tries to fetch what no peer has: it may have been pushed again.
_ASK_AGAIN: Final = scaled(30.0)

#: Manifests that are fetched before this node looks what was pushed meanwhile.
_AT_ONCE: Final = 100

#: Seconds for a slow look at everything, at least, and for a single manifest of it.
_ROUND: Final = scaled(20.0)
_STEP: Final = scaled(0.05)


class Holdings:
    """The acknowledged content of this node. `watch` and `follow` are threads of their own."""

    def __init__(self, records: Records, replication: Replication) -> None:
        self._records = records
        self._replication = replication
        self._complete = False
        self._joined = False
        self._known: dict[str, Manifest] = {}
        self._missing: dict[str, Manifest] = {}
        # When all peers were last asked for what none of them had.
        self._lost: dict[str, float] = {}
        self._at: Position | None = None
        self._latest: Position | None = None
        self._learned = threading.Condition()
        self._round: Iterator[str] = iter(())
        self._looked = 0
        self._getting = ThreadPoolExecutor(8, thread_name_prefix="get")

    @property
    def complete(self) -> bool:
        """Whether this node has everything that it knows to be acknowledged."""
        return self._complete

    @property
    def joined(self) -> bool:
        """Whether it once had everything since it started. From then on it fetches new content as it comes."""
        return self._joined

    def status(self) -> str:
        """For people, in a line."""
        lack = (
            f"{len(self._missing)} to be fetched, {len(self._lost)} lost" if self._missing or self._lost else "all here"
        )
        return f"{len(self._known)} manifests, {lack}; {self._looked} of them looked at in this round"

    # -- learning ------------------------------------------------------------------------------------------

    def watch(self) -> NoReturn:
        """Learn of changes as they are made. Never ends."""
        changes = Agent(own_token("registry")).watch(f"kv/{CHANGED}", wait=20)
        while True:
            try:
                answer = changes.next()
            except Refused as refused:
                logger.debug("%s", refused)
                time.sleep(_PAUSE)
                continue
            latest = Position.of(answer.json()[0]) if answer.status == 200 else Position()
            with self._learned:
                self._latest = latest
                self._learned.notify()

    def follow(self) -> NoReturn:
        """Look at everything that is acknowledged, then at what changes, and fetch what isn't here. Never ends."""
        while True:
            with self._learned:
                self._learned.wait_for(lambda: self._latest != self._at, timeout=self._pause())
                latest = self._latest
            try:
                self.step(latest)
            except RegistryError as error:  # consul has no quorum, or this disk has no room
                logger.debug("%s", error)
                time.sleep(_PAUSE)

    def _pause(self) -> float:
        return _PAUSE if self._missing else max(_STEP, _ROUND / (len(self._known) or 1))

    def step(self, latest: Position | None) -> None:
        """Do what is most urgent.

        Args:
            latest: the latest change; None while it isn't known.

        Raises:
            RegistryError: consul doesn't tell what was changed.
        """
        if latest is not None and latest != self._at:
            self._catch_up(latest)
        elif not self._missing:
            self._look_at_next()
        again = time.monotonic() - _ASK_AGAIN
        self._missing |= {key: self._known[key] for key, since in self._lost.items() if since <= again}
        if self._missing:
            self._fetch()

    def _catch_up(self, latest: Position) -> None:
        keys = self._records.changes(self._at, latest) if self._at else None
        if keys is None:
            known = {manifest.key: manifest for manifest in self._records.manifests()}
            new, looked_at = known.keys() - self._known.keys(), known
            self._known = dict(known)
            self._round, self._looked = iter(()), 0
        else:
            looked_at = self._records.by_key(sorted(keys))
            new = looked_at.keys() - self._known.keys()
            for key in keys:
                self._known.pop(key, None)
            self._known |= looked_at
        self._missing = {key: found for key, found in self._missing.items() if key in self._known}
        self._lost = {key: since for key, since in self._lost.items() if key in self._known}
        for key in new:
            # It may be here as garbage that a collection, begun before the push, is about to remove.
            disk.touch([looked_at[key].digest])
        self._expect(manifest for manifest in looked_at.values() if not _is_here(manifest, protect=manifest.key in new))
        self._at = latest
        if not self._missing:
            self._update()

    # -- having --------------------------------------------------------------------------------------------

    def _look_at_next(self) -> None:
        """Look at one manifest of the slow round."""
        key = next(self._round, None)
        if key is None:
            self._round, self._looked = iter(list(self._known)), 0
            return
        self._looked += 1
        manifest = self._known.get(key)
        if manifest and key not in self._lost and not _is_here(manifest):
            logger.warning("%s@%s is not whole on this disk any more", manifest.repository, manifest.digest)
            self._expect([manifest])

    def _expect(self, lacking: Iterable[Manifest]) -> None:
        """Fetch these, except those that are lost until it is time to ask for them again."""
        new = {manifest.key: manifest for manifest in lacking if manifest.key not in self._lost}
        self._missing |= new
        # One manifest behind, as after every push, the node stays fit to lead.
        self._complete = self._complete and len(self._missing.keys() - self._lost.keys()) <= 1

    def _fetch(self) -> None:
        """Fetch some of what is missing."""
        # The manifests that an index lists come before it.
        missing = sorted(self._missing.values(), key=lambda manifest: manifest.type in manifests.INDEXES)
        for manifest, here in self._fetched(missing[:_AT_ONCE]):
            if here is False:
                continue
            del self._missing[manifest.key]
            if here:
                self._lost.pop(manifest.key, None)
                continue
            if manifest.key not in self._lost:
                logger.error("%s@%s is lost: no registry node has it", manifest.repository, manifest.digest)
            self._lost[manifest.key] = time.monotonic()
        self._update()

    def _fetched(self, wanted: Collection[Manifest]) -> Iterable[tuple[Manifest, bool | None]]:
        def fetch(manifest: Manifest) -> tuple[Manifest, bool | None]:
            return manifest, self._replication.fetch_from_any(manifest, quietly=manifest.key in self._lost)

        found = list(self._getting.map(fetch, wanted))
        disk.flush_to_disk()
        return found

    def _update(self) -> None:
        """Whether everything is here now. What all peers lack doesn't count, nor what is asked for again."""
        self._complete = self._at is not None and not self._missing.keys() - self._lost.keys()
        if self._complete and not self._joined:
            self._joined = True
            logger.info("this node has everything that was acknowledged")


def _is_here(manifest: Manifest, *, protect: bool = False) -> bool:
    """Whether a manifest and its blobs are on this disk.

    Args:
        protect: keep the blobs from a garbage collection that has begun.
    """
    content = contents.on_this_disk(manifest)
    if content is None:
        return False
    blobs = manifest.uploaded
    with suppress(RegistryError):  # an earlier version of this program accepted more
        blobs += manifests.parse(manifest.digest, manifest.type, content).blobs
    if protect:
        disk.touch(blobs)
    return disk.has(manifest, blobs)
