"""What a request asks for, by the grammar of the distribution spec. Pure functions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from swarmer.node.registry.errors import RegistryError

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
#: Other algorithms are refused: `docker-registry` stores content under its sha256 alone, whatever digest it was given.
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
#: The subject of a manifest needn't exist here, so it may be any digest of the OCI's registered algorithms.
_SUBJECT: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_NAME_LENGTH: Final = 255


class Kind(Enum):
    """The resources of a registry; `TOKEN` and those below are our own."""

    PING = auto()
    CATALOG = auto()
    TAGS = auto()
    MANIFEST = auto()
    BLOB = auto()
    UPLOADS = auto()
    UPLOAD = auto()
    REFERRERS = auto()
    TOKEN = auto()
    PEER_COPY = auto()
    PEER_MANIFEST = auto()
    PEER_BLOB = auto()


#: The methods of each, reading first.
METHODS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.PING: ("GET", "HEAD"),
    Kind.CATALOG: ("GET", "HEAD"),
    Kind.TAGS: ("GET", "HEAD"),
    Kind.MANIFEST: ("GET", "HEAD", "PUT", "DELETE"),
    Kind.BLOB: ("GET", "HEAD"),
    Kind.UPLOADS: ("POST",),
    Kind.UPLOAD: ("GET", "PATCH", "PUT", "DELETE"),
    Kind.REFERRERS: ("GET", "HEAD"),
    # A client that sends its password in the body of a POST request asks by GET when that isn't allowed. The body is
    # not read, since nothing is, before the client is known to be allowed.
    Kind.TOKEN: ("GET",),
    Kind.PEER_COPY: ("POST",),
    Kind.PEER_MANIFEST: ("GET", "HEAD"),
    Kind.PEER_BLOB: ("GET", "HEAD"),
}


@dataclass(frozen=True)
class ApiCall:
    """A parsed request.

    Attributes:
        uri: path and query, as the client sent them.
        repository: its name; empty for what isn't in a repository.
        reference: the tag, the digest or the upload; of referrers, the digest of their subject.
        query: the parameters; of one given twice, the last value.
    """

    method: str
    kind: Kind
    uri: str
    repository: str = ""
    reference: str = ""
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Whether it needs the right to push; asking for the progress of an upload does, too."""
        return self.kind in (Kind.UPLOADS, Kind.UPLOAD) or self.method not in ("GET", "HEAD")

    @property
    def brings_manifest(self) -> bool:
        """Whether its body is a manifest."""
        return self.kind is Kind.MANIFEST and self.method == "PUT"

    @property
    def by_digest(self) -> bool:
        """Whether the reference is a digest, not a tag."""
        return ":" in self.reference


def is_digest(text: str) -> bool:
    """Whether this is a digest that the registry accepts."""
    return _DIGEST.fullmatch(text) is not None


def is_subject(text: str) -> bool:
    """Whether this is a digest that a manifest may refer to as its subject."""
    return _SUBJECT.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether this can be the name of a repository."""
    return len(text) <= _NAME_LENGTH and _NAME.fullmatch(text) is not None


def parse(method: str, uri: str) -> ApiCall:
    """Parse a request.

    Raises:
        RegistryError: a registry has no such resource or method, or it isn't in the grammar of the spec.
    """
    split = urlsplit(uri)
    call = _parse_path(method, uri, unquote(split.path), dict(parse_qsl(split.query, keep_blank_values=True)))
    if method not in METHODS[call.kind]:
        allow = {"Allow": ", ".join(METHODS[call.kind])}
        raise RegistryError(405, "UNSUPPORTED", f"{method} is not supported here", allow)
    return call


def _parse_path(method: str, uri: str, path: str, query: Mapping[str, str]) -> ApiCall:
    match path:
        case "/v2" | "/v2/":
            return ApiCall(method, Kind.PING, uri)
        case "/v2/_catalog":
            return ApiCall(method, Kind.CATALOG, uri, query=query)
        case "/token":
            return ApiCall(method, Kind.TOKEN, uri, query=query)
        case "/peer/copy":
            return ApiCall(method, Kind.PEER_COPY, uri)
    if path.startswith("/peer/v2/"):
        inner = _parse_path(method, uri, path.removeprefix("/peer"), query)
        if inner.kind in (Kind.MANIFEST, Kind.BLOB):
            kind = Kind.PEER_MANIFEST if inner.kind is Kind.MANIFEST else Kind.PEER_BLOB
            return ApiCall(method, kind, uri, inner.repository, inner.reference, query)
    if not path.startswith("/v2/"):
        raise RegistryError(404, "UNSUPPORTED", f"{path[:80]} does not exist: paths of a registry begin with /v2/")
    name, kind, reference = _split(path.removeprefix("/v2/"))
    if not is_name(name):
        raise RegistryError(400, "NAME_INVALID", f"{name[:80]!r} is not a valid repository name")
    match kind:
        case Kind.BLOB:
            _check_content(method, "BLOB_UNKNOWN", reference)
        case Kind.MANIFEST if ":" in reference:
            _check_content(method, "MANIFEST_UNKNOWN", reference)
        case Kind.MANIFEST if not _TAG.fullmatch(reference):
            raise RegistryError(400, "MANIFEST_INVALID", f"{reference[:80]!r} is not a valid tag")
        case Kind.REFERRERS if not is_subject(reference):
            raise RegistryError(400, "DIGEST_INVALID", f"{reference[:80]!r} is not a valid digest")
        case Kind.UPLOADS | Kind.UPLOAD:
            _check_upload(query)
        case _:
            pass
    return ApiCall(method, kind, uri, name, reference, query)


def _check_upload(query: Mapping[str, str]) -> None:
    """Check the digest that an upload is to have, before its content is sent."""
    if (digest := query.get("digest")) is not None:
        _check_digest(digest)
    if query.get("digest-algorithm", "sha256") != "sha256":
        raise RegistryError(400, "DIGEST_INVALID", "this registry takes digests by sha256 only")


def _check_content(method: str, unknown: str, digest: str) -> None:
    """Check the digest of content: what the registry doesn't take can't be here."""
    if method != "PUT" and is_subject(digest) and not is_digest(digest):
        raise RegistryError(404, unknown, f"there is no {digest[:80]}: this registry takes digests by sha256 only")
    _check_digest(digest)


def _check_digest(text: str) -> None:
    if is_digest(text):
        return
    if is_subject(text):
        raise RegistryError(400, "DIGEST_INVALID", "this registry takes digests by sha256 only")
    raise RegistryError(400, "DIGEST_INVALID", f"{text[:80]!r} is not a valid digest")


def _split(rest: str) -> tuple[str, Kind, str]:
    """Name, kind and reference. A name may contain words such as `blobs`, so the last one decides."""
    if rest.endswith("/tags/list"):
        return rest.removesuffix("/tags/list"), Kind.TAGS, ""
    name, found, upload = rest.rpartition("/blobs/uploads/")
    if found and "/" not in upload:
        return name, Kind.UPLOAD if upload else Kind.UPLOADS, upload
    if rest.endswith("/blobs/uploads"):
        return rest.removesuffix("/blobs/uploads"), Kind.UPLOADS, ""
    for word, kind in (("/manifests/", Kind.MANIFEST), ("/blobs/", Kind.BLOB), ("/referrers/", Kind.REFERRERS)):
        name, found, reference = rest.rpartition(word)
        if found and "/" not in reference:
            return name, kind, reference
    raise RegistryError(404, "UNSUPPORTED", "unknown resource: a repository has manifests, blobs, tags and referrers")
