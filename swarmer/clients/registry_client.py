"""A client of one node of the private registry, by the distribution spec, for scenarios and benchmarks.

`docker` and `skopeo` hide errors behind retries, and don't report which node answered. This client returns each answer
as it is.
"""

import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter

from swarmer.clients import direct, dns_client
from swarmer.ports import REGISTRY
from swarmer.secrets.client_files import Plane
from swarmer.wait import Waiting

if TYPE_CHECKING:
    from swarmer.cluster import Cluster
    from swarmer.cluster_node import Node

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"

#: The exceptions of a client whose registry is down, cut off or hangs.
Unavailable = (requests.RequestException,)

#: Have the kernel end a connection whose peer is silent for three seconds. The first option is urllib3's default.
_SOCKET_OPTIONS: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000),
]

Certificate = tuple[str, str]
Timeout = float | tuple[float, float]


class RegistryError(Exception):
    """The registry answered with an error.

    Attributes:
        status: of HTTP.
        codes: of the distribution spec; a HEAD has none.
        method: that was refused.
    """

    def __init__(self, answer: requests.Response) -> None:
        self.status = answer.status_code
        self.codes = codes(answer)
        self.method = answer.request.method
        super().__init__(f"{answer.request.method} {answer.request.path_url}: {answer.status_code} {answer.text[:300]}")


@dataclass(frozen=True)
class Image:
    """An image: its manifest, and the blobs that this refers to, by digest."""

    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @classmethod
    def random(cls, size: int = 1000, layers: int = 1) -> "Image":
        """A new image with random content."""
        contents = [secrets.token_bytes(size) for _ in range(layers)]
        config = json.dumps({"architecture": "amd64", "os": "linux", "id": secrets.token_hex(8)}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, content) for content in contents],
        }
        return cls(json.dumps(document).encode(), {digest_of(blob): blob for blob in (config, *contents)})


def digest_of(content: bytes) -> str:
    """`sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def codes(answer: requests.Response) -> list[str]:
    """The error codes in an answer; empty when it isn't in the format of the distribution spec."""
    try:
        return [str(error["code"]) for error in answer.json()["errors"]]
    except (ValueError, KeyError, TypeError):
        return []


class _KeepAliveAdapter(HTTPAdapter):
    """Ends a connection whose peer is gone, instead of waiting for its answer."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Use these options for each connection."""
        options["socket_options"] = _SOCKET_OPTIONS
        super().init_poolmanager(*arguments, **options)


class RegistryClient(Waiting):
    """A client of one node of the registry.

    Args:
        certificate: the files of a client certificate and its key; None for an anonymous client.
        timeout: seconds without an answer until an exception, more on a slow stack; of two, the first is for the
            connection.
    """

    def __init__(
        self, cluster: "Cluster", address: IPv4Address, *, certificate: Certificate | None, timeout: Timeout = 20
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._cluster = cluster
        self._trust = trust_file(cluster)
        self._certificate = certificate
        # A `Session` isn't meant to be shared by threads.
        self._sessions = threading.local()

    @property
    def session(self) -> requests.Session:
        """This thread's connections."""
        if not hasattr(self._sessions, "own"):
            session = direct.session()
            session.verify = self._trust
            session.cert = self._certificate
            session.mount("https://", _KeepAliveAdapter())
            # As every client does: a registry may hide a manifest whose type isn't accepted.
            session.headers["Accept"] = f"{MANIFEST}, {INDEX}"
            self._sessions.own = session
        own: requests.Session = self._sessions.own
        return own

    @property
    def slowness(self) -> float:
        return self._cluster.slowness

    def url(self, path: str) -> str:
        """The URL of a path, or of a URL as the registry answers it."""
        return urljoin(f"https://{self.address}:{REGISTRY.number}/", path)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request; the answer, whatever its status. `options` are those of `requests`."""
        timeout: Timeout = options.pop("timeout", self.timeout)
        if isinstance(timeout, tuple):
            timeout = (self.scaled(timeout[0]), self.scaled(timeout[1]))
        else:
            timeout = self.scaled(timeout)
        return self.session.request(method, self.url(path), timeout=timeout, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET request; the answer, whatever its status."""
        return self.ask("GET", path, **options)

    # -- images --------------------------------------------------------------------------------------------

    def push(self, repository: str, reference: str, image: Image) -> str:
        """Push an image as a client does; its digest.

        Raises:
            RegistryError: the registry answered with an error.
            requests.RequestException: it didn't answer.
        """
        for digest, content in image.blobs.items():
            asked = self.ask("HEAD", f"/v2/{repository}/blobs/{digest}")
            if asked.status_code == 404:
                self.push_blob(repository, digest, content)
            else:
                _checked(asked, 200)
        return self.put_manifest(repository, reference, image.manifest)

    def push_blob(self, repository: str, digest: str, content: bytes) -> None:
        """Upload a blob: begin, the content, the end.

        Raises:
            RegistryError, requests.RequestException: as `push`.
        """
        begun = _checked(self.ask("POST", f"/v2/{repository}/blobs/uploads/"), 202)
        sent = _checked(self.ask("PATCH", begun.headers["Location"], data=content), 202)
        _checked(self.ask("PUT", sent.headers["Location"], params={"digest": digest}), 201)

    def put_manifest(self, repository: str, reference: str, manifest: bytes, type_: str = MANIFEST) -> str:
        """Put a manifest; its digest. When this returns, the manifest is acknowledged.

        Raises:
            RegistryError, requests.RequestException: as `push`.
        """
        headers = {"Content-Type": type_}
        path = f"/v2/{repository}/manifests/{reference}"
        return str(
            _checked(self.ask("PUT", path, data=manifest, headers=headers), 201).headers["Docker-Content-Digest"]
        )

    def pull(self, repository: str, reference: str) -> Image:
        """Pull an image; every digest is checked.

        Raises:
            RegistryError, requests.RequestException: as `push`.
            AssertionError: a content doesn't have its digest.
        """
        answer = _checked(self.get(f"/v2/{repository}/manifests/{reference}"), 200)
        manifest = answer.content
        assert digest_of(manifest) == answer.headers["Docker-Content-Digest"]
        document = json.loads(manifest)
        blobs = {}
        for part in (document["config"], *document["layers"]):
            digest = part["digest"]
            blobs[digest] = _checked(self.get(f"/v2/{repository}/blobs/{digest}"), 200).content
            assert digest_of(blobs[digest]) == digest
        return Image(manifest, blobs)

    def digest(self, repository: str, tag: str) -> str:
        """The digest of a tag.

        Raises:
            RegistryError, requests.RequestException: as `push`.
        """
        path = f"/v2/{repository}/manifests/{tag}"
        return str(_checked(self.get(path), 200).headers["Docker-Content-Digest"])


def pusher(cluster: "Cluster", address: IPv4Address, *, timeout: Timeout = 20) -> RegistryClient:
    """A client of one node with the client certificate of the cluster, which may push."""
    files = cluster.home.client(Plane.REGISTRY)
    certificate = (str(files.certificate), str(files.key))
    return RegistryClient(cluster, address, certificate=certificate, timeout=timeout)


def addresses(cluster: "Cluster", asked: "Node") -> list[IPv4Address]:
    """The addresses that a node's DNS has for the registry's name right now."""
    name = cluster.spec.registry_host.partition(":")[0]
    return [IPv4Address(record) for record in dns_client.ask(asked.ip, name, timeout=1).records]


def trust_file(cluster: "Cluster") -> str:
    """The file with the CAs that sign the registry's certificate."""
    return str(cluster.home.client(Plane.REGISTRY).trust)


def _checked(answer: requests.Response, status: int) -> requests.Response:
    if answer.status_code != status:
        raise RegistryError(answer)
    return answer


def _descriptor(type_: str, content: bytes) -> dict[str, object]:
    return {"mediaType": type_, "digest": digest_of(content), "size": len(content)}


def index_of(images: Sequence[Image]) -> bytes:
    """The index that lists images."""
    entries = [_descriptor(MANIFEST, image.manifest) for image in images]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
