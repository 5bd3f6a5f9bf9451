"""Copies of content from node to node: what this node lacks, and what is about to be on a majority."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from swarmer.node.registry import contents, disk, docker_registry, manifests
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.settings import Settings
from swarmer.node.slowness import scaled

logger = logging.getLogger(__name__)

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
        self._trouble: dict[str, float] = {}
        self._one_by_one: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._mutex = threading.Lock()
        # One pool for each peer, so that one that hangs delays no other.
        self._copying = {peer: ThreadPoolExecutor(16, thread_name_prefix=f"copy-{peer}") for peer in settings.peers}
        self._fetchers = ThreadPoolExecutor(4, thread_name_prefix="fetch")

    # -- fetching ------------------------------------------------------------------------------------------

    def fetch_from_any(self, manifest: Manifest, *, quietly: bool = False) -> bool | None:
        """Fetch a manifest and all its parts from whichever peer has it.

        The caller has to call `disk.flush_to_disk`.

        Args:
            quietly: log nothing.

        Returns:
            Whether it is here now; None if all peers answer that they don't have it.
        """
        denied = 0
        for peer in self._troubled_last():
            try:
                self.fetch(peer, manifest.repository, manifest.digest, manifest.uploaded)
                return True
            except RegistryError as error:
                denied += error.status == 404
                reason = str(error)
            except OSError as error:
                reason = f"{peer}: {error}"
                self._trouble[peer] = time.monotonic()
            if not quietly:
                logger.info("could not fetch %s@%s yet: %s", manifest.repository, manifest.digest, reason)
        return None if denied == len(self._settings.peers) else False

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

        Only as many peers as needed are asked first, so that the client doesn't wait for more; the others fetch it once
        it is recorded (`holdings`).

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
