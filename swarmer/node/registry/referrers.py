"""The list of what refers to a manifest, such as its signatures. Pure functions.

Source: the distribution spec, "Listing Referrers" and "Referrers Tag Schema".
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from swarmer.node.registry.manifests import LARGEST, OCI_INDEX, Document

#: Bytes of a list in one answer: clients read no larger manifest.
_PAGE: Final = LARGEST - 1024


def tag_of(subject: str) -> str:
    """The tag under which clients keep the same list where a registry doesn't."""
    algorithm, _, value = subject.partition(":")
    return f"{algorithm[:32]}-{value[:64]}"


def descriptor(referrer: Document) -> dict[str, Any]:
    """The entry of a referrer."""
    entry: dict[str, Any] = {"mediaType": referrer.type, "digest": referrer.digest, "size": referrer.size}
    if referrer.artifact_type:
        entry["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        entry["annotations"] = referrer.annotations
    return entry


def page(referrers: Iterable[Document], artifact_type: str | None) -> tuple[bytes, str]:
    """An index of as many referrers as fit into one answer.

    Args:
        referrers: in the order of their digests.
        artifact_type: list only those of this type.

    Returns:
        The index, and the digest of its last referrer if there are more, else an empty string.
    """
    entries: list[str] = []
    last, size = "", 0
    for referrer in referrers:
        if artifact_type is not None and referrer.artifact_type != artifact_type:
            continue
        entry = json.dumps(descriptor(referrer), separators=(",", ":"))
        size += len(entry) + 1
        if entries and size > _PAGE:
            return _index(entries), last
        entries.append(entry)
        last = referrer.digest
    return _index(entries), ""


def _index(entries: Sequence[str]) -> bytes:
    return f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{",".join(entries)}]}}'.encode()
