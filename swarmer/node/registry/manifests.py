"""What a manifest consists of. Pure functions.

Sources: the image manifest and image index specifications of the OCI; Docker's image manifest version 2, schema 2.
"""

import hashlib
import json
from typing import Any, Final

from swarmer.node.registry.api_call import is_digest
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.records import Manifest

_IMAGES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

#: For `docker-registry`, which otherwise hides some of them.
ACCEPT: Final = ", ".join((*_IMAGES, *_INDEXES))

#: The limit of `docker-registry`, in bytes.
LARGEST: Final = 4 << 20


def digest_of(content: bytes) -> str:
    """The digest by which content is known."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse(repository: str, reference: str, type_: str, content: bytes) -> Manifest:
    """The parts of a manifest.

    Args:
        reference: the tag or the digest under which it was pushed, or is kept.
        type_: the header `Content-Type` that came with it; may be empty where the content names its type.

    Raises:
        RegistryError: it isn't a manifest, is of a type that isn't accepted, or doesn't have that digest.
    """
    digest = digest_of(content)
    if ":" in reference and reference != digest:
        raise RegistryError(400, "DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
    try:
        document: dict[str, Any] = json.loads(content)
        kind = type_.partition(";")[0].strip() or str(document["mediaType"])
        if kind in _INDEXES:
            blobs, manifests = [], [str(entry["digest"]) for entry in document["manifests"]]
        elif kind in _IMAGES:
            # A layer with addresses of its own is fetched from these.
            layers = [layer for layer in document["layers"] if not layer.get("urls")]
            blobs, manifests = [str(entry["digest"]) for entry in (document["config"], *layers)], []
        else:
            raise RegistryError(400, "MANIFEST_INVALID", f"manifests of type {kind[:80]!r} are not accepted")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RegistryError(400, "MANIFEST_INVALID", f"this is not a valid manifest of type {type_[:80]!r}") from None
    if wrong := [part for part in (*blobs, *manifests) if not is_digest(part)]:
        raise RegistryError(400, "MANIFEST_INVALID", f"it refers to {wrong[0][:80]!r}, which is not a valid digest")
    return Manifest(
        repository, digest, kind, len(content), tuple(dict.fromkeys(blobs)), tuple(dict.fromkeys(manifests))
    )
