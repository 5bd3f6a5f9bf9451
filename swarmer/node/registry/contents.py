"""The content of acknowledged manifests, which lists their parts: from this node's disk, or from a peer."""

import logging

from swarmer.node.registry import disk, manifests
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.manifests import Document
from swarmer.node.registry.peers import QUICK, Peers
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.settings import Settings

logger = logging.getLogger(__name__)


class Lost(RegistryError):
    """Every registry node answers that it doesn't have it."""


class Contents:
    """Reads manifests."""

    def __init__(self, settings: Settings, peers: Peers) -> None:
        self._settings = settings
        self._peers = peers

    def read(self, manifest: Manifest) -> bytes:
        """The content of a manifest.

        Raises:
            Lost: no registry node has it.
            RegistryError: no node that has it answers.
        """
        if (content := on_this_disk(manifest)) is not None:
            return content
        denied = 0
        for peer in self._settings.peers:
            try:
                path = f"{manifest.repository}/manifests/{manifest.digest}"
                with self._peers.content(peer, path, timeout=QUICK) as answer:
                    content = answer.read()
                if manifests.digest_of(content) == manifest.digest:
                    return content
            except RegistryError as error:
                denied += error.status == 404
            except OSError:
                continue
        if denied == len(self._settings.peers):
            raise Lost(404, "MANIFEST_UNKNOWN", f"{manifest.digest} is lost: no registry node has it; push it again")
        raise unavailable(f"no node that has {manifest.digest} answers; try again")

    def document(self, manifest: Manifest) -> Document:
        """A parsed manifest.

        Raises:
            Lost, RegistryError: as `read`.
        """
        return manifests.parse(manifest.digest, manifest.type, self.read(manifest))


def on_this_disk(manifest: Manifest) -> bytes | None:
    """The content of a manifest; None if it isn't here, or is damaged."""
    try:
        content = disk.data(manifest.digest).read_bytes()
    except OSError:
        return None
    if manifests.digest_of(content) == manifest.digest:
        return content
    logger.error("%s is damaged on this disk", manifest.digest)
    return None
