"""Garbage collection on one registry node: removes content that no acknowledged manifest needs, and no push counts on.

    python3 -m swarmer.node.registry.garbage_collection --grace 3600     reports what it freed, as JSON
    python3 -m swarmer.node.registry.garbage_collection --untagged       on the leader: removes manifests without a tag

It is safe during pushes: what a push counts on was written or touched (`disk.touch`) within the grace period, and so
is kept. Under a lock, a blob is either touched before its age is looked at, or removed before `docker-registry` checks
that all blobs of a manifest exist; then the manifest is refused, and the client sends the blob again.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Final

from swarmer.node.registry.agents import Agents
from swarmer.node.registry.contents import Contents, Lost
from swarmer.node.registry.disk import collection_lock, relative_path
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.manifests import Document
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import Manifest, Records
from swarmer.node.registry.settings import API_SOCKET, STORAGE_ROOT, Settings
from swarmer.node.unix_http import UnixHTTPConnection

#: Seconds for which unneeded content is kept: longer than a push takes.
GRACE: Final = 3600.0

#: Seconds for which the removal of manifests may take.
_TIMEOUT: Final = 600.0

Lock = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Freed:
    """What a collection did.

    Attributes:
        blobs: contents removed, of layers, configurations and manifests.
        uploads: abandoned uploads removed.
        bytes: that these took.
        kept: contents that stay.
    """

    blobs: int = 0
    uploads: int = 0
    bytes: int = 0
    kept: int = 0


def live(manifests: Iterable[Manifest], document: Callable[[Manifest], Document]) -> set[tuple[str, str]]:
    """What acknowledged manifests need: the repository, and the digest.

    Args:
        document: reads a manifest.

    Raises:
        RegistryError: one can't be read, so that its parts aren't known. A lost one has none any more.
    """
    needed: set[tuple[str, str]] = set()
    for manifest in manifests:
        digests = [manifest.digest, *manifest.uploaded]
        with suppress(Lost):
            parts = document(manifest)
            digests += [*parts.blobs, *parts.manifests]
        needed |= {(manifest.repository, digest) for digest in digests}
    return needed


def check_plausible(root: Path, *, changed: bool) -> None:
    """Check that consul's state wasn't lost, and may be read: else everything would count as garbage.

    Args:
        changed: whether consul holds the record that every change of the registry leaves.

    Raises:
        RegistryError: it doesn't, though the disk holds manifests.
    """
    if not changed and any(link for link in (root / "repositories").glob("**/_manifests/revisions/*/*/link")):
        message = "consul knows of no push, but this disk holds manifests: nothing is removed"
        raise RegistryError(503, "UNAVAILABLE", message)


def collect(root: Path, needed: Collection[tuple[str, str]], before: float, lock: Lock = nullcontext) -> Freed:
    """Remove what isn't needed and was last written before a time.

    Args:
        root: the tree of `docker-registry`, with `blobs` and `repositories`.
        needed: repository and digest of everything to keep.
        before: by the clock of the files.
        lock: held from each look at an age to the removal.
    """
    digests = {digest for _, digest in needed}
    # Links first: a link without its blob would be an error, a blob without a link is just garbage.
    for repository, digest, link in _links(root / "repositories"):
        if (repository, digest) not in needed:
            with lock():
                if _old(link, before) and _old(root / "blobs" / relative_path(digest), before):
                    shutil.rmtree(link.parent, ignore_errors=True)
    blobs = uploads = freed = kept = 0
    for data in sorted((root / "blobs").glob("*/*/*/data")):
        digest = f"{data.parents[2].name}:{data.parent.name}"
        with lock():
            if digest in digests or not _old(data, before):
                kept += 1
                continue
            freed += data.stat().st_blocks * 512
            blobs += 1
            shutil.rmtree(data.parent)
    for upload in sorted((root / "repositories").glob("**/_uploads/*")):
        files = [path for path in upload.rglob("*") if path.is_file()]
        if all(_old(path, before) for path in (upload, *files)):
            freed += sum(path.stat().st_blocks * 512 for path in files)
            uploads += 1
            shutil.rmtree(upload, ignore_errors=True)
    return Freed(blobs, uploads, freed, kept)


def _links(repositories: Path) -> Iterator[tuple[str, str, Path]]:
    """Repository, digest and file of every link of a layer or a manifest."""
    for kind in ("_layers", "_manifests/revisions"):
        for link in sorted(repositories.glob(f"**/{kind}/*/*/link")):
            repository = link.parents[2 + kind.count("/") + 1].relative_to(repositories)
            yield str(repository), f"{link.parents[1].name}:{link.parent.name}", link


def _old(path: Path, before: float) -> bool:
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return True


def main(arguments: list[str]) -> int:
    """Collect on this node; 1 when it can't be known what is acknowledged."""
    parser = argparse.ArgumentParser(description="Remove from this node's disk what the registry doesn't need.")
    parser.add_argument("--grace", type=float, default=GRACE, help="seconds for which unneeded content is kept")
    parser.add_argument("--untagged", action="store_true", help="on the leader: only remove manifests without a tag")
    options = parser.parse_args(arguments)
    grace: float = options.grace
    settings = Settings.load()
    if settings.shared:
        print("the registry's content is not on this node's disk", file=sys.stderr)
        return 1
    started = time.time()
    if options.untagged:
        return _remove_untagged(started - grace)
    root, records = STORAGE_ROOT / "docker/registry/v2", Records(Agents())
    try:
        needed = live(records.manifests(), Contents(settings, Peers(settings)).document)
        check_plausible(root, changed=records.has_changed())
    except RegistryError as error:
        print(error.message, file=sys.stderr)
        return 1
    lock = partial(collection_lock, exclusive=True)
    freed = collect(root, needed, started - grace, lock)
    os.sync()
    print(json.dumps(asdict(freed)))
    return 0


def _remove_untagged(before: float) -> int:
    """Have the program that leads, on this node, remove the manifests that no tag needs."""
    connection = UnixHTTPConnection(API_SOCKET, timeout=_TIMEOUT)
    try:
        connection.request("POST", "/untagged", json.dumps({"before": before}))
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        print(f"swarmer-registry does not answer: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if answer.status != 200:
        print(content["errors"][0]["message"], file=sys.stderr)
        return 1
    print(json.dumps(content))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
