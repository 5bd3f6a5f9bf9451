"""Where the state of clusters is stored: `~/.swarmer/STACK/DC/`, mode 0700."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarmer.files import make_private_folder
from swarmer.secrets.client_files import ClientFiles, Plane, client_files

#: The checkout, which contains the recipe of the image and the Vagrantfile.
REPOSITORY: Final = Path(__file__).parents[1]


def swarmer_home() -> Path:
    """`~/.swarmer`, or the folder in `SWARMER_HOME`."""
    return Path(os.environ.get("SWARMER_HOME") or "~/.swarmer").expanduser().resolve()


def cache_home() -> Path:
    """The folder for built images: `~/.cache/swarmer`, or the folder in `SWARMER_CACHE`."""
    if named := os.environ.get("SWARMER_CACHE"):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "swarmer"


@dataclass(frozen=True)
class ClusterHome:
    """The folder of one cluster, and the paths of its files."""

    stack: str
    dc: str

    @property
    def folder(self) -> Path:
        return swarmer_home() / self.stack / self.dc

    @property
    def name(self) -> str:
        return f"{self.stack}:{self.dc}"

    @property
    def tag(self) -> str:
        """Eight characters that are unique to this cluster name and `SWARMER_HOME`.

        They are part of host-wide names (interfaces, namespaces, control groups), so that `nspawn:dev` of two users
        on one machine don't conflict.
        """
        return hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.json"

    @property
    def owner_lock(self) -> Path:
        return self.folder / "owner.lock"

    @property
    def credentials(self) -> Path:
        return self.folder / "credentials.json"

    @property
    def ssh(self) -> Path:
        return self.folder / "ssh"

    @property
    def nodes(self) -> Path:
        return self.folder / "nodes"

    @property
    def control_sockets(self) -> Path:
        """Outside of the home to keep it short: the path of a unix socket has at most 108 bytes."""
        runtime = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", tempfile.gettempdir())
        return Path(runtime) / f"swarmer-{self.tag}"

    def client(self, plane: Plane) -> ClientFiles:
        """The files with which this machine connects to the servers of one plane; they need not exist."""
        return client_files(self.folder, plane)

    def node(self, name: str) -> Path:
        return self.nodes / name

    def make(self) -> None:
        """Create the folder, accessible to its owner only."""
        make_private_folder(self.folder)

    def remove(self) -> None:
        """Remove the folder and all its content, including the CA; also the folder of the stack if it is empty."""
        shutil.rmtree(self.folder)
        with suppress(OSError):
            self.folder.parent.rmdir()


def cluster_homes() -> Iterator[ClusterHome]:
    """Every cluster folder that contains a ledger, sorted by name.

    Raises:
        PermissionError: the folders belong to another user.
    """
    return _homes_with("ledger.json")


def remembered_homes() -> Iterator[ClusterHome]:
    """Every cluster folder that contains a ledger or files of a CA, sorted by name.

    Raises:
        PermissionError: the folders belong to another user.
    """
    return _homes_with("ledger.json", "ca.pem", "ca-key.pem", "pki")


def _homes_with(*names: str) -> Iterator[ClusterHome]:
    home = swarmer_home()
    if home.exists():
        next(home.iterdir(), None)  # raises if the folder is unreadable, where `glob` would find nothing
    for folder in sorted({found.parent for name in names for found in home.glob(f"*/*/{name}")}):
        yield ClusterHome(folder.parent.name, folder.name)
