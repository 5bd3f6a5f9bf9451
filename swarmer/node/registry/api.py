"""Answers to clients about tags and manifests: what exists is in consul, the content is on the disks of the nodes."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import urlencode

from swarmer.node.registry import access, disk, docker_registry, manifests, referrers
from swarmer.node.registry.access import ClientCredentials
from swarmer.node.registry.api_call import ApiCall, Kind, is_digest, parse
from swarmer.node.registry.contents import Contents, Lost
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.leadership import Leadership
from swarmer.node.registry.manifests import Document
from swarmer.node.registry.records import MOST_UPLOADED, Fenced, Manifest, Records
from swarmer.node.registry.replication import Replication
from swarmer.node.registry.settings import Settings
from swarmer.node.registry.untagged import untagged

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds to wait for a late proof of the leadership, as on a busy node.
_GRACE: Final = 1.0

#: Entries of a list in one answer, unless the client asks for another number.
_PAGE: Final = 1000

#: Manifests that are removed at once. Pushes wait meanwhile, for about a second.
_REMOVED_AT_ONCE: Final = 600


@dataclass(frozen=True)
class Response:
    """An answer to a client."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Api:
    """Answers every request that doesn't transfer a blob."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        leadership: Leadership | None,
        replication: Replication | None,
        contents: Contents,
    ) -> None:
        self._settings = settings
        self._records = records
        self._leadership = leadership
        self._replication = replication
        self._contents = contents
        self._one_change = threading.Lock()

    def answer(
        self, method: str, uri: str, credentials: ClientCredentials, host: str, type_: str, body: bytes
    ) -> Response:
        """The answer to a request that `Router` let pass.

        It is parsed from the same text as there, by the same function: a parse that came along in a header would be one
        more thing to protect from clients.

        Raises:
            RegistryError: the error for the client.
            OSError: this node's `docker-registry` doesn't answer.
        """
        call = parse(method, uri)
        match call.kind, method:
            case Kind.PING, _:
                return _json({}, {"Docker-Distribution-Api-Version": "registry/2.0"})
            case Kind.TOKEN, _:
                return self._token(credentials, host)
            case Kind.CATALOG, _:
                return _page("repositories", self._records.repositories(), call, {})
            case Kind.TAGS, _:
                return self._tags(call)
            case Kind.REFERRERS, _:
                return self._referrers(call)
            case Kind.MANIFEST, "GET" | "HEAD":
                return self._manifest(call)
            case Kind.MANIFEST, "PUT":
                return self._put(call, type_, body)
            case Kind.MANIFEST, _:
                return self._delete(call)
            case Kind.PEER_COPY, _:
                return self._copy(body)
            case _:
                raise RegistryError(404, "UNSUPPORTED", "this node does not answer that")

    # -- reading -------------------------------------------------------------------------------------------

    def _token(self, credentials: ClientCredentials, host: str) -> Response:
        now = time.time()
        right = access.check_for_token(credentials, self._settings, now, host)
        token = access.token(right, self._settings, now)
        return _json({"token": token, "access_token": token, "expires_in": access.TOKEN_LIFETIME})

    def _tags(self, call: ApiCall) -> Response:
        tags = sorted(self._records.tags(call.repository))
        if not tags and not self._records.has_repository(call.repository):
            raise RegistryError(404, "NAME_UNKNOWN", f"repository {call.repository} does not exist")
        return _page("tags", tags, call, {"name": call.repository})

    def _manifest(self, call: ApiCall) -> Response:
        digest = call.reference if call.by_digest else self._records.digest_of(call.repository, call.reference)
        known = self._records.manifest(call.repository, digest) if digest else None
        if not known:
            raise RegistryError(404, "MANIFEST_UNKNOWN", f"{call.repository} has no manifest {call.reference}")
        content = self._contents.read(known)
        headers = {"Content-Type": known.type, "Docker-Content-Digest": known.digest, "Etag": f'"{known.digest}"'}
        return Response(200, content, {**headers, "Docker-Distribution-Api-Version": "registry/2.0"})

    def _referrers(self, call: ApiCall) -> Response:
        artifact_type = call.query.get("artifactType")
        last = call.query.get("last", "")
        body, more = referrers.page(self._referring(call.repository, call.reference, last), artifact_type)
        headers = {"Content-Type": manifests.OCI_INDEX}
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        if more:
            query = {"last": more} if artifact_type is None else {"artifactType": artifact_type, "last": more}
            headers["Link"] = _next(call, query)
        return Response(200, body, headers)

    def _referring(self, repository: str, subject: str, last: str) -> Iterator[Document]:
        """The manifests that refer to a subject, in the order of their digests, those after `last`."""
        found = {*self._records.referrers(repository, subject), *self._tagged_as_referrers(repository, subject)}
        known = self._records.some(repository, sorted(digest for digest in found if digest > last))
        for digest in sorted(known):
            try:
                document = self._contents.document(known[digest])
            except Lost:
                continue
            if document.subject == subject:
                yield document

    def _tagged_as_referrers(self, repository: str, subject: str) -> Sequence[str]:
        """What clients listed by a tag, as where a registry doesn't list referrers."""
        digest = self._records.digest_of(repository, referrers.tag_of(subject))
        index = self._records.manifest(repository, digest) if digest else None
        return self._contents.document(index).manifests if index else ()

    # -- changing ------------------------------------------------------------------------------------------

    def _put(self, call: ApiCall, type_: str, body: bytes) -> Response:
        session, replication = self._session(), self._replication
        assert replication
        document = manifests.parse(call.reference, type_, body)
        disk.touch((document.digest, *document.blobs, *document.foreign))
        manifest = _record(call.repository, document)
        docker_registry.put_manifest(manifest.repository, manifest.digest, manifest.type, body)
        self._records.check_listed(manifest.repository, document.manifests)
        replication.spread(manifest, self._leads)
        tag = None if call.by_digest else call.reference
        self._change(session, lambda: self._records.acknowledge(session, manifest, tag, document.manifests))
        where = f"/v2/{manifest.repository}/manifests/{manifest.digest}"
        headers = {"Location": where, "Docker-Content-Digest": manifest.digest}
        return Response(201, b"", headers | ({"OCI-Subject": manifest.subject} if manifest.subject else {}))

    def _delete(self, call: ApiCall) -> Response:
        session = self._session()
        if call.by_digest:
            if not self._records.manifest(call.repository, call.reference):
                raise RegistryError(404, "MANIFEST_UNKNOWN", f"{call.repository} has no manifest {call.reference}")
            self._change(session, lambda: self._records.forget(session, call.repository, call.reference))
        else:
            if not self._records.digest_of(call.repository, call.reference):
                raise RegistryError(404, "MANIFEST_UNKNOWN", f"{call.repository} has no tag {call.reference}")
            self._change(session, lambda: self._records.forget_tag(session, call.repository, call.reference))
        return Response(202)

    def remove_untagged(self, before: float) -> int:
        """Remove the manifests that no tag needs; their number.

        Args:
            before: keep what was pushed, or lost a tag, at this time or later, in seconds since 1970.

        Raises:
            RegistryError: this node doesn't lead, or can't read a manifest.
        """
        session = self._session()
        listed: dict[str, Sequence[str]] = {}

        def lists(manifest: Manifest) -> Sequence[str]:
            if manifest.type not in manifests.INDEXES:
                return ()
            if manifest.digest not in listed:
                listed[manifest.digest] = self._contents.document(manifest).manifests
            return listed[manifest.digest]

        def choose(known: list[Manifest], tags: Mapping[str, Mapping[str, str]]) -> Sequence[Manifest]:
            return untagged(known, tags, lists, before)[:_REMOVED_AT_ONCE]

        # The indexes are read before pushes have to wait.
        more = bool(choose(self._records.manifests(), self._records.all_tags()))
        removed = 0
        while more:
            count = self._change(session, lambda: self._records.forget_some(session, choose))
            removed += count
            more = count == _REMOVED_AT_ONCE
        return removed

    def _leads(self) -> bool:
        return self._leadership is not None and self._leadership.lease.wait(_GRACE) is not None

    def _session(self) -> str:
        assert self._leadership
        session = self._leadership.lease.wait(_GRACE)
        if session is None:
            raise unavailable("this node no longer leads the registry; try again")
        return session

    def _change(self, session: str, change: Callable[[], _T]) -> _T:
        """Make a change, if this node still leads; consul checks that once more when it carries the change out.

        Raises:
            RegistryError: it no longer leads, or another change came between.
        """
        with self._one_change:
            if self._session() != session:
                raise unavailable("the leader of the registry has changed; try again")
            try:
                return change()
            except Fenced as fenced:
                logger.warning("a change came too late: %s", fenced)
                reason = "the leader of the registry has changed, or an earlier change came late; try again"
                raise unavailable(reason) from fenced

    def _copy(self, body: bytes) -> Response:
        """Copy a manifest from the leader, at its request."""
        try:
            wanted = json.loads(body)
            source, repository, digest = wanted["source"], wanted["repository"], wanted["digest"]
            uploaded = [str(each) for each in wanted["uploaded"]]
            call = parse("GET", f"/v2/{repository}/manifests/{digest}")
        except (ValueError, LookupError, TypeError):
            raise RegistryError(
                400, "MANIFEST_INVALID", "the body must be JSON with source, repository, digest and uploaded"
            ) from None
        known = source in self._settings.peers and call.by_digest and all(map(is_digest, uploaded))
        if not known or not self._replication:
            raise RegistryError(400, "MANIFEST_INVALID", f"can't copy {digest} from {source}")
        self._replication.fetch(source, call.repository, call.reference, uploaded)
        disk.flush_to_disk()
        return _json({})


def _record(repository: str, document: Document) -> Manifest:
    """What is to be recorded of a manifest whose blobs are on this disk.

    Raises:
        RegistryError: it is too much.
    """
    uploaded = tuple(digest for digest in document.foreign if disk.has_blob(repository, digest))
    if len(uploaded) > MOST_UPLOADED:
        message = f"of the layers with addresses of their own, {MOST_UPLOADED} at most may be uploaded"
        raise RegistryError(400, "MANIFEST_INVALID", message)
    return Manifest(repository, document.digest, document.type, document.size, document.subject, uploaded)


def _json(value: object, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Response(200, body, {"Content-Type": "application/json", **(headers or {})})


def _page(key: str, entries: Sequence[str], call: ApiCall, rest: Mapping[str, str]) -> Response:
    """A list, or the page of it that the client asks for with a link to the next one."""
    try:
        count = int(call.query.get("n") or _PAGE)
    except ValueError:
        count = -1
    if count < 0:
        raise RegistryError(400, "PAGINATION_NUMBER_INVALID", f"{call.query['n'][:20]!r} is not a number of entries")
    last = call.query.get("last", "")
    left = [entry for entry in entries if entry > last]
    page = left[:count]
    headers = {"Link": _next(call, {"last": page[-1], "n": count})} if page and len(page) < len(left) else {}
    return _json({**rest, key: page}, headers)


def _next(call: ApiCall, query: Mapping[str, object]) -> str:
    """The header with the address of a list's next page."""
    return f'<{call.uri.partition("?")[0]}?{urlencode(query)}>; rel="next"'
