"""The planes of a cluster, and the certificate files of a client of each plane."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Plane(StrEnum):
    """Who talks to whom: a certificate of one plane opens nothing on another."""

    CONSUL = "consul"
    DOCKER = "docker"
    REGISTRY = "registry"


@dataclass(frozen=True)
class ClientFiles:
    """The PEM files of a client of one plane, for the harness and the command line.

    Attributes:
        certificate: the client's, followed by the issuing CA that signed it.
        key: the private key of `certificate`.
        trust: the CAs by which the client checks the server.
    """

    certificate: Path
    key: Path
    trust: Path


# The docker client wants all three in one folder, under these names (`DOCKER_CERT_PATH`).
_NAMES: Final = {
    Plane.CONSUL: ("client.pem", "client-key.pem", "pki/consul-bundle.pem"),
    Plane.DOCKER: ("docker/cert.pem", "docker/key.pem", "docker/ca.pem"),
    Plane.REGISTRY: ("registry-client.pem", "registry-client-key.pem", "pki/registry-bundle.pem"),
}

#: The consul plane's certificate and key for a browser, in the same folder; see `authority.P12_PASSWORD`.
P12_NAME: Final = "client.p12"


def client_files(folder: Path, plane: Plane) -> ClientFiles:
    """The files of a client of one plane, whether they exist or not.

    Args:
        folder: the home of the cluster.
    """
    certificate, key, trust = _NAMES[plane]
    return ClientFiles(folder / certificate, folder / key, folder / trust)
