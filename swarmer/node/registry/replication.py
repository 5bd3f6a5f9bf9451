"""That this node has what was acknowledged, and that a majority has what is about to be."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from swarmer.node.consul_agent import Agent, Answer, Refused, own_token
from swarmer.node.patience import patient
from swarmer.node.registry import disk, docker_registry, manifests
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import MANIFESTS, Manifest, next_index
from swarmer.node.registry.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds between two tries to get what a node lacks.
_PAUSE: Final = patient(0.5)

#: Seconds until all are asked again for what nobody had: it may have been pushed anew.
_ASK_AGAIN: Final = patient(30.0)

#: Seconds between two looks whether this node still leads, while peers copy.
_LOOK: Final = 0.2

#: Seconds after which the others are asked too, when the first peers have not copied yet; and those peers come last
#: the next time.
_HEDGE: Final = patient(1.0)


class Replication:
    """What this node has on its disk, and getting the rest from the others."""

    def __init__(self, settings: Settings, peers: Peers) -> None:
        self._settings = settings
        self._peers = peers
        self._complete = False
        self._joined = False
        # When everybody was asked last.
        self._lost: dict[str, float] = {}
        self._touched: set[str] = set()
        self._trouble: dict[str, float] = {}
        self._one_by_one: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._mutex = threading.Lock()
        # One pool for each, so that a peer that hangs holds up nobody else.
        self._copying = {peer: ThreadPoolExecutor(16, thread_name_prefix=f"copy-{peer}") for peer in settings.peers}
        self._getting = ThreadPoolExecutor(8, thread_name_prefix="get")
        self._fetchers = ThreadPoolExecutor(4, thread_name_prefix="fetch")

    @property
    def complete(self) -> bool:
        """Whether this node has all that it knows to be acknowledged."""
        return self._complete

    @property
    def joined(self) -> bool:
        """Whether it had everything once since it began. From then on it fetches what is new by and by."""
        return self._joined

    # -- having --------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Get everything that is acknowledged, and then what comes. Never ends."""
        agent = Agent(own_token("registry"), timeout=40)
        index = 0
        while True:
            try:
                # The first question is a consistent one; those that wait can't be, and only bring news.
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
        """Get what isn't here; whether nothing is left to get. What everybody has lost doesn't count, while it is."""
        known = list(wanted)
        missing = [manifest for manifest in known if not self._is_here(manifest)]
        self._touched = {manifest.key for manifest in known}
        self._lost = {manifest.key: self._lost[manifest.key] for manifest in missing if manifest.key in self._lost}
        new = [manifest for manifest in missing if manifest.key not in self._lost]
        if new:
            # The small step of a push that just ended is no reason to be unfit.
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
        if manifest.key not in self._touched:
            # It may be here as garbage, which a collection that began before the push is about to remove.
            disk.touch((manifest.digest, *manifest.blobs))
        return disk.has(manifest)

    def _get(self, manifest: Manifest) -> bool:
        """Get one manifest from whoever has it; whether it is here now, or lost."""
        denied = 0
        lost = manifest.key in self._lost
        for peer in self._troubled_last():
            try:
                self.fetch(peer, manifest.repository, manifest.digest)
                self._lost.pop(manifest.key, None)
                return True
            except RegistryError as error:
                denied += error.status == 404
                reason = str(error)
            except OSError as error:
                reason = f"{peer}: {error}"
                self._trouble[peer] = time.monotonic()
            if not lost:
                logger.info("%s@%s is not here yet: %s", manifest.repository, manifest.digest, reason)
        if denied == len(self._settings.peers):
            if not lost:
                logger.error("%s@%s is lost: no registry node has it", manifest.repository, manifest.digest)
            self._lost[manifest.key] = time.monotonic()
        return manifest.key in self._lost

    # -- fetching ------------------------------------------------------------------------------------------

    def fetch(self, peer: str, repository: str, digest: str) -> Manifest:
        """Get a manifest and everything that it consists of from a peer.

        It is written through after `disk.flush_to_disk`. Call that also when everything was here already: the process
        that wrote it may have been killed before it did.

        Raises:
            RegistryError: the peer doesn't have it, or there is no room here.
            OSError: the peer, or the own `docker-registry`, doesn't answer.
        """
        with self._mutex:
            lock = self._one_by_one.setdefault(f"{repository}@{digest}", threading.Lock())
        with lock:
            with self._peers.content(peer, f"{repository}/manifests/{digest}") as answer:
                content = answer.read(manifests.LARGEST + 1)
                type_ = answer.headers.get("Content-Type", "")
            if manifests.digest_of(content) != digest:
                raise OSError(f"{peer} has another content for {digest}")
            manifest = manifests.parse(repository, digest, type_, content)
            disk.touch((digest, *manifest.blobs))
            if not disk.has(manifest):
                for child in manifest.manifests:
                    self.fetch(peer, repository, child)
                # Some side by side: one alone would keep one processor busy, here and at the peer.
                list(self._fetchers.map(partial(self.fetch_blob, peer, repository), manifest.blobs))
                docker_registry.put_manifest(repository, digest, type_, content)
        return manifest

    def fetch_blob(self, peer: str, repository: str, digest: str) -> None:
        """Get one blob from a peer.

        Raises:
            RegistryError, OSError: as `fetch`.
        """
        with self._mutex:
            lock = self._one_by_one.setdefault(f"{repository}/{digest}", threading.Lock())
        with lock:
            disk.touch([digest])
            if disk.has_blob(repository, digest):
                return
            with self._peers.content(peer, f"{repository}/blobs/{digest}") as answer:
                length = int(answer.headers["Content-Length"])
                disk.check_room(length)
                docker_registry.put_blob(repository, digest, answer, length)

    # -- giving --------------------------------------------------------------------------------------------

    def spread(self, manifest: Manifest, leads: Callable[[], bool]) -> None:
        """Return when a majority of the registry nodes, this one too, has a manifest of ours on its disk.

        As few peers as it takes are asked first, so that the client waits for no more; the others get it by and by.

        Args:
            leads: whether this node still leads, without which there is no use in going on.

        Raises:
            RegistryError: no majority could.
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
                copying = self._copying[peer].submit(self._peers.copy, peer, manifest.repository, manifest.digest)
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
            copying.cancel()  # one that has begun goes on, and is of use
        if done < needed:
            told = "; ".join(f"{peer}: {reason}" for peer, reason in reasons.items())
            logger.warning("%s@%s has no majority: %s", manifest.repository, manifest.digest, told)
            if full:
                raise disk.full(f"no majority of the nodes has room: {told}")
            raise unavailable(f"only {done + 1} of {len(self._settings.nodes)} registry nodes could take it: {told}")

    def _troubled_last(self) -> list[str]:
        """The peers, those that have failed or were slow at the end, the last one that was so last."""
        return sorted(self._settings.peers, key=lambda peer: self._trouble.get(peer, 0))


def _acknowledged(answer: Answer) -> list[Manifest]:
    entries: list[dict[str, Any]] = answer.json() or [] if answer.status == 200 else []
    found = [Manifest.from_entry(entry) for entry in entries]
    # What an index lists comes before it.
    return sorted(found, key=lambda manifest: bool(manifest.manifests))
