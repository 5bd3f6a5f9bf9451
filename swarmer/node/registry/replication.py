"""Copies of content: all that is acknowledged on this node, and what is about to be on a majority."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from swarmer.node.consul_agent import Agent, Answer, Refused, own_token
from swarmer.node.registry import contents, disk, docker_registry, manifests
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import MANIFESTS, Manifest, next_index
from swarmer.node.registry.settings import Settings
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

#: Seconds between two tries to fetch what this node lacks.
_PAUSE: Final = scaled(0.5)

#: Seconds between two tries to fetch what no peer has: it may have been pushed again.
_ASK_AGAIN: Final = scaled(30.0)

#: Seconds between two checks that this node still leads, while peers copy.
_LOOK: Final = 0.2

#: Seconds after which the other peers are asked too, if the first ones have not finished. The slow ones are asked last
#: the next time.
_HEDGE: Final = scaled(1.0)


class Replication:
    """Fetches from the peers what this node lacks, and has them fetch from this node."""

    def __init__(self, settings: Settings, peers: Peers) -> None:
        self._settings = settings
        self._peers = peers
        self._complete = False
        self._joined = False
        # When all peers were last asked for what none of them had.
        self._lost: dict[str, float] = {}
        self._touched: set[str] = set()
        # The blobs of each acknowledged manifest that is here, by its digest. They never change.
        self._blobs: dict[str, tuple[str, ...]] = {}
        self._trouble: dict[str, float] = {}
        self._one_by_one: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._mutex = threading.Lock()
        # One pool for each peer, so that one that hangs delays no other.
        self._copying = {peer: ThreadPoolExecutor(16, thread_name_prefix=f"copy-{peer}") for peer in settings.peers}
        self._getting = ThreadPoolExecutor(8, thread_name_prefix="get")
        self._fetchers = ThreadPoolExecutor(4, thread_name_prefix="fetch")

    @property
    def complete(self) -> bool:
        """Whether this node has everything that it knows to be acknowledged."""
        return self._complete

    @property
    def joined(self) -> bool:
        """Whether it once had everything since it started. From then on it fetches new content as it comes."""
        return self._joined

    # -- having --------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Fetch everything that is acknowledged, and then new content. Never returns."""
        agent = Agent(own_token("registry"), timeout=40)
        index = 0
        while True:
            try:
                # The first query is a consistent one; blocking queries can't be, and only report changes.
                how = f"index={index}&wait=20s" if index else "consistent"
                answer = agent.ask("GET", f"kv/{MANIFESTS}?recurse&{how}")
            except Refused:
                index = 0
                time.sleep(_PAUSE)
                continue
            if answer.status not in (200, 404):
                index = 0
                time.sleep(_PAUSE)
                continue
            got_all = self.get(_acknowledged(answer))
            index = next_index(answer, index) if got_all else 0
            if not got_all:
                time.sleep(_PAUSE)

    def get(self, wanted: Iterable[Manifest]) -> bool:
        """Fetch what isn't on this disk; whether nothing is left to fetch. What all peers lack doesn't count."""
        known = list(wanted)
        missing = [manifest for manifest in known if not self._is_here(manifest)]
        self._touched = {manifest.key for manifest in known}
        digests = {manifest.digest for manifest in known}
        self._blobs = {digest: blobs for digest, blobs in self._blobs.items() if digest in digests}
        self._lost = {manifest.key: self._lost[manifest.key] for manifest in missing if manifest.key in self._lost}
        new = [manifest for manifest in missing if manifest.key not in self._lost]
        if new:
            # One manifest behind, as after every push, the node stays fit to lead.
            self._complete = self._complete and len(new) == 1
        long_ago = time.monotonic() - _ASK_AGAIN
        again = [
            manifest for manifest in missing if manifest.key in self._lost and self._lost[manifest.key] <= long_ago
        ]
        got = list(self._getting.map(self._get, new))
        list(self._getting.map(self._get, again))
        if new or again:
            disk.flush_to_disk()
        self._complete = all(got)
        if self._complete and not self._joined:
            self._joined = True
            logger.info("this node has everything that was acknowledged")
        return self._complete

    def _is_here(self, manifest: Manifest) -> bool:
        new = manifest.key not in self._touched
        if new:
            # It may be here as garbage that a collection, begun before the push, is about to remove.
            disk.touch([manifest.digest])
        if manifest.digest not in self._blobs:
            content = contents.on_this_disk(manifest)
            if content is None:
                return False
            self._blobs[manifest.digest] = manifests.parse(manifest.digest, manifest.type, content).blobs
        blobs = (*self._blobs[manifest.digest], *manifest.uploaded)
        if new:
            disk.touch(blobs)
        return disk.has(manifest, blobs)

    def _get(self, manifest: Manifest) -> bool:
        """Fetch one manifest from any peer; whether it is here now, or lost."""
        denied = 0
        lost = manifest.key in self._lost
        for peer in self._troubled_last():
            try:
                self.fetch(peer, manifest.repository, manifest.digest, manifest.uploaded)
                self._lost.pop(manifest.key, None)
                return True
            except RegistryError as error:
                denied += error.status == 404
                reason = str(error)
            except OSError as error:
                reason = f"{peer}: {error}"
                self._trouble[peer] = time.monotonic()
            if not lost:
                logger.info("could not fetch %s@%s yet: %s", manifest.repository, manifest.digest, reason)
        if denied == len(self._settings.peers):
            if not lost:
                logger.error("%s@%s is lost: no registry node has it", manifest.repository, manifest.digest)
            self._lost[manifest.key] = time.monotonic()
        return manifest.key in self._lost

    # -- fetching ------------------------------------------------------------------------------------------

    def fetch(self, peer: str, repository: str, digest: str, uploaded: Iterable[str] = ()) -> None:
        """Fetch a manifest and all its parts from a peer.

        The caller has to call `disk.flush_to_disk`, also when everything was here already: the process that wrote it
        may have been killed before it did.

        Args:
            uploaded: digests of the layers with addresses of their own that the peer has.

        Raises:
            RegistryError: the peer doesn't have it, or this disk has no room.
            OSError: the peer, or this node's `docker-registry`, doesn't answer.
        """
        with self._mutex:
            lock = self._one_by_one.setdefault(f"{repository}@{digest}", threading.Lock())
        with lock:
            with self._peers.content(peer, f"{repository}/manifests/{digest}") as answer:
                content = answer.read(manifests.LARGEST + 1)
                type_ = answer.headers.get("Content-Type", "")
            if manifests.digest_of(content) != digest:
                raise OSError(f"{peer} sent other content for {digest}")
            document = manifests.parse(digest, type_, content)
            blobs = (*document.blobs, *uploaded)
            disk.touch((digest, *blobs))
            manifest = Manifest(repository, digest, document.type, document.size)
            if contents.on_this_disk(manifest) is None or not disk.has(manifest, blobs):
                for child in document.manifests:
                    self.fetch(peer, repository, child)
                # Several in parallel: one alone would use one processor only, here and at the peer.
                list(self._fetchers.map(partial(self.fetch_blob, peer, repository), blobs))
                docker_registry.put_manifest(repository, digest, type_, content)

    def fetch_blob(self, peer: str, repository: str, digest: str) -> None:
        """Fetch one blob from a peer.

        Raises:
            RegistryError, OSError: as `fetch`.
        """
        with self._mutex:
            lock = self._one_by_one.setdefault(f"{repository}/{digest}", threading.Lock())
        with lock:
            disk.touch([digest])
            if disk.has_blob(repository, digest):
                return
            with self._peers.content(peer, f"{repository}/blobs/{digest}", many=True) as answer:
                length = int(answer.headers["Content-Length"])
                disk.check_room(length)
                docker_registry.put_blob(repository, digest, answer, length)

    # -- giving --------------------------------------------------------------------------------------------

    def spread(self, manifest: Manifest, leads: Callable[[], bool]) -> None:
        """Return when a majority of the registry nodes, with this one, has a manifest of this node on its disk.

        Only as many peers as needed are asked first, so that the client doesn't wait for more; `follow` brings it to
        the others.

        Args:
            leads: whether this node still leads; if not, this ends.

        Raises:
            RegistryError: it isn't on a majority.
        """
        disk.flush_to_disk()
        needed = self._settings.majority - 1
        reasons: dict[str, str] = {}
        full = False
        waiting = self._troubled_last()
        running: dict[Future[None], str] = {}
        done = 0

        def ask(count: int) -> None:
            for peer in waiting[:count]:
                copying = self._copying[peer].submit(self._peers.copy, peer, manifest)
                running[copying] = peer
            del waiting[:count]

        ask(needed)
        hedge = time.monotonic() + _HEDGE
        while done < needed and running:
            ended, _ = wait(running, timeout=_LOOK, return_when="FIRST_COMPLETED")
            for future in ended:
                peer = running.pop(future)
                error = future.exception()
                if error is None:
                    done += 1
                    self._trouble.pop(peer, None)
                else:
                    reasons[peer] = str(error)
                    full |= isinstance(error, RegistryError) and error.status == disk.FULL
            if waiting and (reasons or time.monotonic() > hedge):
                self._trouble |= dict.fromkeys([*running.values(), *reasons], time.monotonic())
                ask(len(waiting))
            if done < needed and not leads():
                raise unavailable("this node does not lead the registry any more; try again")
        for copying in running:
            copying.cancel()  # a copy that has begun continues, and is useful
        if done < needed:
            text = "; ".join(f"{peer}: {reason}" for peer, reason in reasons.items())
            logger.warning("%s@%s is not on a majority: %s", manifest.repository, manifest.digest, text)
            if full:
                raise disk.full(f"no majority of the nodes has room: {text}")
            raise unavailable(
                f"only {done + 1} of {len(self._settings.nodes)} registry nodes could store it: {text}; try again"
            )

    def _troubled_last(self) -> list[str]:
        """The peers, those that failed or were slow last, the most recent one at the very end."""
        return sorted(self._settings.peers, key=lambda peer: self._trouble.get(peer, 0))


def _acknowledged(answer: Answer) -> list[Manifest]:
    entries: list[dict[str, Any]] = answer.json() or [] if answer.status == 200 else []
    found = [Manifest.from_entry(entry) for entry in entries]
    # The manifests that an index lists come before it.
    return sorted(found, key=lambda manifest: manifest.type in manifests.INDEXES)
