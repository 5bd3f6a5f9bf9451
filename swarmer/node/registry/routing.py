"""Where nginx passes a request: to this program, to this node's `docker-registry` or its disk, or to another node."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from swarmer.node.registry import access, disk, uploads
from swarmer.node.registry.access import ClientCredentials, Right
from swarmer.node.registry.api_call import ApiCall, Kind, is_digest, parse
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.leadership import Leadership
from swarmer.node.registry.peers import QUICK, Peers
from swarmer.node.registry.settings import Settings
from swarmer.ports import REGISTRY

#: The names of nginx's upstreams.
_API: Final = "http://swarmer-registry"
_DOCKER_REGISTRY: Final = "http://docker-registry"

#: Seconds for which a request waits for a leader before it fails. Nothing is changed in that time.
PATIENCE: Final = 8.0


@dataclass(frozen=True)
class Request:
    """A request, as nginx describes it.

    Attributes:
        host: the header of that name.
        length: of the body in bytes; 0 when it is unknown.
        content_range: the header of that name; empty if there is none.
        forwarded: another registry node passed it on, so it must not be passed on again.
    """

    method: str
    uri: str
    host: str
    credentials: ClientCredentials
    length: int = 0
    content_range: str = ""
    forwarded: bool = False


@dataclass(frozen=True)
class Route:
    """Where a request goes.

    Attributes:
        target: the URL that nginx passes it to.
        authorization: the header for the other node.
        digest: of a blob on this node's disk, which nginx then sends by itself.
        forwarded: it passes through the forwarder, and so ends when the leadership does.
        whole: nginx reads all of the body before it passes the request on, and passes it on with a length.
    """

    target: str
    authorization: str = ""
    digest: str = ""
    forwarded: bool = False
    whole: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        passing = "@whole" if self.whole else "@forwarded" if self.forwarded else "@direct"
        headers = {"X-Target": self.target, "X-Bearer": self.authorization, "X-Passing": passing}
        if self.digest:
            headers |= {"X-File": f"/{disk.relative_path(self.digest)}", "X-Digest": self.digest}
        return headers


class Router:
    """Routes by what the client may do, who leads, which node has a blob, and whether there is room."""

    def __init__(self, settings: Settings, leadership: Leadership | None, peers: Peers) -> None:
        self._settings = settings
        self._leadership = leadership
        self._peers = peers

    def route(self, request: Request) -> Route:
        """The route of a request.

        Raises:
            RegistryError: it isn't allowed, or can't be answered now.
        """
        credentials, settings, now = request.credentials, self._settings, time.time()
        call = parse(request.method, request.uri)
        if call.kind in (Kind.PEER_COPY, Kind.PEER_MANIFEST, Kind.PEER_BLOB):
            access.check_peer(credentials, settings)
            return self._for_peer(call)
        if call.kind is Kind.TOKEN:
            access.check_for_token(credentials, settings, now, request.host)
            return Route(_API + call.uri)
        right = access.check(Right.PUSH if call.writes else Right.PULL, credentials, settings, now, request.host)
        if call.kind is Kind.PING:
            # Otherwise `docker` would never send credentials, which may allow more than its certificate.
            if right is not Right.PUSH and not credentials.authorization:
                message = "ask for a token, with the certificate or credentials"
                raise RegistryError(401, "UNAUTHORIZED", message, access.challenge(request.host, settings))
            return Route(_API + call.uri)
        if self._leadership is None:
            if call.kind is Kind.UPLOAD:
                self._check_order(request, call, arrived=None)
            return Route(_DOCKER_REGISTRY + call.uri, forwarded=call.writes)
        # A client that pushes asks for a blob in order to use it, and only the leader can ensure that it stays.
        for_leader = call.writes or (call.kind is Kind.BLOB and call.method == "HEAD" and right is Right.PUSH)
        if for_leader:
            node = self._leader(request)
        elif call.kind is Kind.BLOB:
            node = self._holder(request, call)
        else:
            node = settings.name
        if node != settings.name:
            token = access.token(right, settings, now)
            target, bearer = self._at(node) + call.uri, f"Bearer {token}"
            return Route(target, bearer, forwarded=for_leader, whole=call.brings_manifest)
        if right is Right.PUSH:
            self._prepare(request, call)
        if call.kind is Kind.BLOB and call.method == "GET" and disk.has_blob(call.repository, call.reference):
            return Route(_DOCKER_REGISTRY + call.uri, digest=call.reference)
        if call.kind is Kind.UPLOAD:
            return Route(_DOCKER_REGISTRY + self._next_chunk(request, call), forwarded=True)
        target = _DOCKER_REGISTRY if call.kind in (Kind.BLOB, Kind.UPLOADS) else _API
        return Route(target + call.uri, forwarded=for_leader, whole=call.brings_manifest)

    def _for_peer(self, call: ApiCall) -> Route:
        """Between registry nodes: content on this node's disk, acknowledged or not."""
        if call.kind is Kind.PEER_COPY:
            return Route(_API + call.uri, forwarded=True)
        target = _DOCKER_REGISTRY + call.uri.removeprefix("/peer")
        if call.kind is Kind.PEER_BLOB and disk.has_blob(call.repository, call.reference):
            # By docker-registry, each of a thousand small blobs takes as much processor time as to store it.
            return Route(target, digest=call.reference)
        return Route(target)

    def _leader(self, request: Request) -> str:
        assert self._leadership
        leader = self._leadership.leader(timeout=PATIENCE)
        if leader is None or (request.forwarded and leader != self._settings.name):
            raise unavailable("the registry has no leader at the moment; it is read-only, try again shortly")
        return leader

    def _holder(self, request: Request, call: ApiCall) -> str:
        """A node that has a blob on its disk; this one, if none does."""
        own = self._settings.name
        if request.forwarded or disk.has_blob(call.repository, call.reference):
            return own
        for peer in self._settings.peers:
            try:
                path = f"{call.repository}/blobs/{call.reference}"
                with self._peers.content(peer, path, method="HEAD", timeout=QUICK):
                    return peer
            except (RegistryError, OSError):
                continue
        return own

    def _prepare(self, request: Request, call: ApiCall) -> None:
        """Prepare a step of a push on this node: check the room, and protect blobs from garbage collection.

        Raises:
            RegistryError: there is no room.
        """
        if call.method in ("POST", "PATCH", "PUT"):
            disk.check_room(request.length)
        digests = [call.reference, call.query.get("mount", "")]
        disk.touch(digest for digest in digests if is_digest(digest))

    def _next_chunk(self, request: Request, call: ApiCall) -> str:
        """The address of an upload, as `docker-registry` accepts it now.

        Raises:
            RegistryError: the request brings a chunk that isn't the next one.
        """
        arrived = disk.uploaded(call.repository, call.reference)
        if arrived is None:
            return call.uri
        self._check_order(request, call, arrived)
        return uploads.renewed(call.uri, self._settings.uploads_secret, arrived)

    def _check_order(self, request: Request, call: ApiCall, arrived: int | None) -> None:
        """Check that a chunk is the next one; in a bucket, `docker-registry` knows what has arrived."""
        known = uploads.offset_of(call.query.get("_state", ""), self._settings.uploads_secret)
        if call.method in ("PATCH", "PUT") and known is not None:
            at = known if arrived is None else arrived
            uploads.check_order(request.content_range, request.length, known=known, arrived=at)

    def _at(self, node: str) -> str:
        return f"https://{self._settings.nodes[node]}:{REGISTRY.number}"
