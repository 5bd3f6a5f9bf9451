"""Which manifests no tag needs any more. Pure functions."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter

from swarmer.node.registry.records import Manifest

#: The digests of the manifests that a manifest lists.
Lists = Callable[[Manifest], Sequence[str]]


def untagged(
    manifests: Sequence[Manifest], tags: Mapping[str, Mapping[str, str]], lists: Lists, before: float
) -> list[Manifest]:
    """The manifests to remove, each index before what it lists.

    A manifest is kept if a tag stands for it, or if it was pushed or lost a tag lately. What a kept manifest lists is
    kept, and what refers to it, such as a signature.

    Args:
        manifests: all of them.
        tags: repository to its tags, and these to their digests.
        before: keep what was pushed, or lost a tag, at this time or later, in seconds since 1970.
    """
    kept = {
        (manifest.repository, manifest.digest)
        for manifest in manifests
        if manifest.named >= before or manifest.digest in tags.get(manifest.repository, {}).values()
    }
    known = {(manifest.repository, manifest.digest): manifest for manifest in manifests}
    referrers: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for manifest in manifests:
        referrers[manifest.repository, manifest.subject].append(manifest.digest)
    unseen = list(kept)
    while unseen:
        place = unseen.pop()
        needed = [*lists(known[place]), *referrers[place]] if place in known else []
        new = {(place[0], each) for each in needed} - kept
        kept |= new
        unseen += new
    removed = [manifest for place, manifest in known.items() if place not in kept]
    return _indexes_first(removed, lists)


def _indexes_first(manifests: Sequence[Manifest], lists: Lists) -> list[Manifest]:
    """In an order in which no index is left without what it lists, should the removal end in the middle."""
    known = {(manifest.repository, manifest.digest): manifest for manifest in manifests}
    order: TopologicalSorter[tuple[str, str]] = TopologicalSorter(dict.fromkeys(known, ()))
    for place, manifest in known.items():
        for digest in lists(manifest):
            if (manifest.repository, digest) in known:
                order.add((manifest.repository, digest), place)
    return [known[place] for place in order.static_order()]
