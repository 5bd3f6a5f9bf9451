"""What a manifest consists of. Pure functions.

Sources: the image manifest, image index and descriptor specifications of the OCI; Docker's image manifest version 2,
schema 2.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, Final

from swarmer.node.registry.api_call import is_digest, is_subject
from swarmer.node.registry.errors import RegistryError

_OCI_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_IMAGES: Final = (_OCI_IMAGE, "application/vnd.docker.distribution.manifest.v2+json")
INDEXES: Final = (OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

#: For `docker-registry`, which otherwise hides some of them.
ACCEPT: Final = ", ".join((*_IMAGES, *INDEXES))

#: The limit of `docker-registry`, in bytes.
LARGEST: Final = 4 << 20

#: The addresses of layers that `docker-registry` accepts; to any other, it answers with an error of its own, 500.
_URL: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
    r"(?:[/?](?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2})*)?"
)


@dataclass(frozen=True)
class Document:
    """A parsed manifest.

    Attributes:
        type: its media type.
        size: in bytes.
        blobs: digests of the configuration and the layers, which have to exist.
        foreign: digests of the layers with addresses of their own, which clients fetch from these, and may upload, too.
        manifests: digests of the manifests that an index lists.
        subject: the digest of the manifest that this one refers to; empty if there is none.
        artifact_type: what a referrer is, for lists of referrers; empty if it isn't known.
        annotations: for the same lists.
    """

    digest: str
    type: str
    size: int
    blobs: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


def digest_of(content: bytes) -> str:
    """The digest by which content is known."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse(reference: str, type_: str, content: bytes) -> Document:
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
        if kind not in (*_IMAGES, *INDEXES):
            raise RegistryError(400, "MANIFEST_INVALID", f"manifests of type {kind[:80]!r} are not accepted")
        if document["schemaVersion"] != 2:
            raise RegistryError(400, "MANIFEST_INVALID", "the schemaVersion of a manifest has to be 2")
        return _parts(digest, kind, len(content), document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RegistryError(400, "MANIFEST_INVALID", f"this is not a valid manifest of type {type_[:80]!r}") from None


def _parts(digest: str, kind: str, size: int, document: dict[str, Any]) -> Document:
    blobs: list[str] = []
    foreign: list[str] = []
    manifests: list[str] = []
    if kind in INDEXES:
        manifests = [str(entry["digest"]) for entry in document["manifests"]]
    else:
        blobs.append(str(document["config"]["digest"]))
        for layer in document["layers"]:
            (foreign if _has_address(layer) else blobs).append(str(layer["digest"]))
    if wrong := [part for part in (*blobs, *foreign, *manifests) if not is_digest(part)]:
        raise RegistryError(400, "MANIFEST_INVALID", f"it refers to {wrong[0][:80]!r}, which is not a valid digest")
    parts = Document(digest, kind, size, _unique(blobs), _unique(foreign), _unique(manifests))
    if kind not in (_OCI_IMAGE, OCI_INDEX):
        # Docker's types have none of the rest.
        return parts
    subject = str(document["subject"]["digest"]) if document.get("subject") is not None else ""
    if subject and not is_subject(subject):
        raise RegistryError(400, "MANIFEST_INVALID", f"its subject {subject[:80]!r} is not a valid digest")
    artifact_type = document.get("artifactType") or ""
    if not artifact_type and kind == _OCI_IMAGE:
        artifact_type = document["config"].get("mediaType") or ""
    annotations = {str(key): str(value) for key, value in (document.get("annotations") or {}).items()}
    return replace(parts, subject=subject, artifact_type=str(artifact_type), annotations=annotations)


def _unique(digests: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(digests))


def _has_address(layer: dict[str, Any]) -> bool:
    """Whether clients fetch a layer from addresses of its own.

    Raises:
        RegistryError: one of these isn't an address that clients could fetch it from.
    """
    urls = layer.get("urls") or []
    if not urls and layer.get("mediaType") == _FOREIGN_LAYER:
        raise RegistryError(400, "MANIFEST_INVALID", "a layer of a foreign type needs the addresses that it is at")
    if wrong := [url for url in urls if not (isinstance(url, str) and _URL.fullmatch(url))]:
        raise RegistryError(400, "MANIFEST_INVALID", f"the address {str(wrong[0])[:80]!r} of a layer is not valid")
    return bool(urls)
