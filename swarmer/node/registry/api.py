"""Answers to clients about tags and manifests: what exists is in consul, the content is on the disks of the nodes."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from swarmer.node.registry import access, disk, docker_registry, manifests
from swarmer.node.registry.access import ClientCredentials
from swarmer.node.registry.api_call import ApiCall, Kind, parse
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.leadership import Leadership
from swarmer.node.registry.peers import QUICK, Peers
from swarmer.node.registry.records import Fenced, Manifest, Records
from swarmer.node.registry.replication import Replication
from swarmer.node.registry.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds to wait for a late proof of the leadership, as on a busy node.
_GRACE: Final = 1.0

#: Entries of a list in one answer, unless the client asks for another number.
_PAGE: Final = 1000


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
        peers: Peers,
    ) -> None:
        self._settings = settings
        self._records = records
        self._leadership = leadership
        self._replication = replication
        self._peers = peers
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
        if not tags and call.repository not in self._records.repositories():
            raise RegistryError(404, "NAME_UNKNOWN", f"repository {call.repository} does not exist")
        return _page("tags", tags, call, {"name": call.repository})

    def _manifest(self, call: ApiCall) -> Response:
        digest = call.reference if call.by_digest else self._records.digest_of(call.repository, call.reference)
        known = self._records.manifest(call.repository, digest) if digest else None
        if not known:
            raise RegistryError(404, "MANIFEST_UNKNOWN", f"{call.repository} has no manifest {call.reference}")
        content = self._content(known)
        headers = {"Content-Type": known.type, "Docker-Content-Digest": known.digest, "Etag": f'"{known.digest}"'}
        return Response(200, content, {**headers, "Docker-Distribution-Api-Version": "registry/2.0"})

    def _content(self, manifest: Manifest) -> bytes:
        """The content of an acknowledged manifest, from this disk or from a peer."""
        try:
            content = disk.data(manifest.digest).read_bytes()
            if manifests.digest_of(content) == manifest.digest:
                return content
            logger.error("%s is damaged on this disk", manifest.digest)
        except OSError:
            pass
        for peer in self._settings.peers:
            try:
                path = f"{manifest.repository}/manifests/{manifest.digest}"
                with self._peers.content(peer, path, timeout=QUICK) as answer:
                    content = answer.read()
                if manifests.digest_of(content) == manifest.digest:
                    return content
            except (RegistryError, OSError):
                continue
        raise unavailable(f"no node that has {manifest.digest} answers; try again")

    # -- changing ------------------------------------------------------------------------------------------

    def _put(self, call: ApiCall, type_: str, body: bytes) -> Response:
        session, replication = self._session(), self._replication
        assert replication
        manifest = manifests.parse(call.repository, call.reference, type_, body)
        disk.touch((manifest.digest, *manifest.blobs))
        docker_registry.put_manifest(manifest.repository, manifest.digest, manifest.type, body)
        for child in manifest.manifests:
            if not self._records.manifest(manifest.repository, child):
                raise RegistryError(404, "MANIFEST_BLOB_UNKNOWN", f"{child}, which the index lists, does not exist")
        replication.spread(manifest, self._leads)
        tag = None if call.by_digest else call.reference
        self._change(session, lambda: self._records.acknowledge(session, manifest, tag))
        where = f"/v2/{manifest.repository}/manifests/{manifest.digest}"
        return Response(201, b"", {"Location": where, "Docker-Content-Digest": manifest.digest})

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

    def _leads(self) -> bool:
        return self._leadership is not None and self._leadership.lease.wait(_GRACE) is not None

    def _session(self) -> str:
        assert self._leadership
        session = self._leadership.lease.wait(_GRACE)
        if session is None:
            raise unavailable("this node no longer leads the registry; try again")
        return session

    def _change(self, session: str, change: Callable[[], None]) -> None:
        """Make a change, if this node still leads; consul checks that once more when it carries the change out.

        Raises:
            RegistryError: it no longer leads, or another change came between.
        """
        with self._one_change:
            if self._session() != session:
                raise unavailable("the leader of the registry has changed; try again")
            try:
                change()
            except Fenced as fenced:
                logger.warning("a change came too late: %s", fenced)
                reason = "the leader of the registry has changed, or an earlier change came late; try again"
                raise unavailable(reason) from fenced

    def _copy(self, body: bytes) -> Response:
        """Copy a manifest from the leader, at its request."""
        try:
            wanted = json.loads(body)
            source, repository, digest = wanted["source"], wanted["repository"], wanted["digest"]
            call = parse("GET", f"/v2/{repository}/manifests/{digest}")
        except (ValueError, LookupError, TypeError):
            raise RegistryError(
                400, "MANIFEST_INVALID", "the body must be JSON with source, repository and digest"
            ) from None
        if source not in self._settings.peers or not call.by_digest or not self._replication:
            raise RegistryError(400, "MANIFEST_INVALID", f"can't copy {digest} from {source}")
        self._replication.fetch(source, call.repository, call.reference)
        disk.flush_to_disk()
        return _json({})


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
    headers = {}
    if len(page) < len(left):
        path = call.uri.partition("?")[0]
        headers["Link"] = f'<{path}?{urlencode({"last": page[-1] if page else last, "n": count})}>; rel="next"'
    return _json({**rest, key: page}, headers)
