"""The settings of this node's registry, from the seed data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: The folder of the seed data; a node without `registry.json` in it runs no registry.
FOLDER: Final = Path("/etc/swarmer/registry")

#: The sockets of this program and of `docker-registry`, which no container can reach.
API_SOCKET: Final = "/run/swarmer-registry/api.sock"
DOCKER_REGISTRY_SOCKET: Final = "/run/docker-registry/registry.sock"
STORAGE_ROOT: Final = Path("/var/lib/docker-registry")


@dataclass(frozen=True)
class Settings:
    """One registry node's view of the registry.

    Attributes:
        name: of this node.
        nodes: name to address of all registry nodes, this one too.
        domain: `DC.STACK`.
        storage: `filesystem`, with a copy on every node; or `s3`, where all share one bucket.
        organization: the O of the certificates of this cluster.
        user: the user that may push with the password.
        password_sha256: of that password, which is random and long.
        secret: signs tokens, the same on all registry nodes.
    """

    name: str
    nodes: Mapping[str, str]
    domain: str
    storage: str
    organization: str
    user: str
    password_sha256: str = field(repr=False)
    secret: str = field(repr=False)

    @classmethod
    def load(cls) -> "Settings":
        """Read the file of this node."""
        return cls(**json.loads((FOLDER / "registry.json").read_text()))

    @property
    def uploads_secret(self) -> str:
        """The secret by which `docker-registry` signs the addresses of uploads."""
        return derived(self.secret, "uploads")

    @property
    def ip(self) -> str:
        return self.nodes[self.name]

    @property
    def peers(self) -> Mapping[str, str]:
        """The other registry nodes."""
        return {name: ip for name, ip in self.nodes.items() if name != self.name}

    @property
    def majority(self) -> int:
        """The number of nodes that must have what is acknowledged."""
        return len(self.nodes) // 2 + 1

    @property
    def shared(self) -> bool:
        """Whether all nodes share one storage, so that no leader and no copies are needed."""
        return self.storage != "filesystem"


def derived(secret: str, purpose: str) -> str:
    """A secret for one purpose, which doesn't reveal the secret that it is derived from."""
    return hashlib.sha256(f"{purpose} {secret}".encode()).hexdigest()
