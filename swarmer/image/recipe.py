"""The parts of the node image, and the digests by which built ones are found again.

The image has up to four layers, each cached by the content of its recipe: `base` (Debian packages, about a minute),
`consul` (only with `SWARMER_CONSUL`), `machine` (a kernel and hardware support, only for virtual machines), and `node`
(our own files, seconds).
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.state import REPOSITORY

RECIPE = REPOSITORY / "image"
SUITE = "trixie"

#: The version of the package `consul` in that suite's `base` layer.
DEBIAN_CONSUL: Final = (1, 8, 7)

#: Files of this package that are installed on nodes, relative to the repository.
NODE_MODULES = ("swarmer/__init__.py", "swarmer/ports.py", "swarmer/node")

#: The other parts of the layer `node`, relative to the recipe.
NODE_FILES = ("customize.sh", "masked.txt", "generators.txt", "rootfs")

#: The parts of the layer `machine`, relative to `machine/` of the recipe.
MACHINE_FILES = ("install.sh", "packages.txt", "masked.txt", "rootfs", "vagrant.pub")

#: Files from which a disk is made besides the image, relative to the repository.
DISK_FILES = ("image/machine/disk.sh", "image/machine/boot", "image/machine/box")


class Kind(StrEnum):
    """Which kernel the image runs on: that of the host, or its own."""

    CONTAINER = "container"
    MACHINE = "machine"


@dataclass(frozen=True)
class Layer:
    """One layer of the image, named `NAME-DIGEST` in the store."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}-{self.digest}"


@dataclass(frozen=True)
class ConsulBinary:
    """A consul to use instead of Debian's, given by `SWARMER_CONSUL` and `SWARMER_CONSUL_SHA256`."""

    path: Path
    sha256: str

    def content(self) -> bytes:
        """The executable, unpacked if the file is a zip.

        Raises:
            HostError: the file can't be read, doesn't match the checksum, or doesn't contain consul.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise HostError(
                f"SWARMER_CONSUL is {self.path}, which can't be read: {error.strerror}",
                hint="set it to a consul binary or release zip, or unset it to use Debian's consul",
            ) from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise HostError(
                f"the SHA-256 of {self.path} is {found}, but SWARMER_CONSUL_SHA256 is {self.sha256 or 'not set'}",
                hint="set SWARMER_CONSUL_SHA256 to the checksum that its publisher states",
            )
        if data[:4] == b"\x7fELF":
            return data
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read("consul")
        except (zipfile.BadZipFile, KeyError) as error:
            raise HostError(
                f"{self.path} is neither an executable nor a zip that contains consul",
                hint="use the release zip for Linux, or the binary in it",
            ) from error


def consul_binary() -> ConsulBinary | None:
    """The consul given by the environment, or None for Debian's."""
    if not (path := os.environ.get("SWARMER_CONSUL")):
        return None
    return ConsulBinary(Path(path).expanduser(), os.environ.get("SWARMER_CONSUL_SHA256", "").lower())


def layers(kind: Kind = Kind.CONTAINER) -> list[Layer]:
    """The layers of the image by the current recipe, lowest first."""
    base = Layer("base", digest(RECIPE / "base.sh", RECIPE / "packages.txt", RECIPE / "apt"))
    stack = [base]
    if consul := consul_binary():
        stack.append(Layer("consul", consul.sha256[:12]))
    if kind is Kind.MACHINE:
        files = [RECIPE / "machine" / name for name in MACHINE_FILES]
        stack.append(Layer("machine", digest(*files, salt="+".join(map(str, stack)))))
    own = [RECIPE / name for name in NODE_FILES]
    own += [REPOSITORY / module for module in NODE_MODULES]
    below = "+".join(str(layer) for layer in stack)
    stack.append(Layer("node", digest(*own, salt=below)))
    return stack


def disk() -> Layer:
    """The disk of the machine image by the current recipe; stored beside the layers."""
    return Layer("disk", digest(*(REPOSITORY / name for name in DISK_FILES), salt=str(layers(Kind.MACHINE)[-1])))


def apt_sources() -> list[str]:
    """The apt sources to build from: this machine's own Debian mirror, or none for mmdebstrap's default."""
    template = "$(ORIGIN) $(COMPONENT) $(CREATED_BY) $(CODENAME) $(REPO_URI)"
    listing = run(["apt-get", "indextargets", "--format", template], check=False).stdout
    lines: list[str] = []
    for row in listing.splitlines():
        match = re.fullmatch(r"Debian main Packages (\w+)(-\w+)? (\S+)", row)
        if not match:
            continue
        pocket, mirror = match[2] or "", match[3]
        if pocket in ("", "-updates", "-security"):
            lines.append(f"deb {mirror} {SUITE}{pocket} main")
    return list(dict.fromkeys(lines))


def digest(*paths: Path, salt: str = "") -> str:
    """Twelve hex characters that change if the name, mode or content of any file, or `salt`, changes."""
    sha256 = hashlib.sha256(salt.encode())
    for path in paths:
        for file in _files(path):
            mode = "x" if os.access(file, os.X_OK) else "-"
            sha256.update(f"{file.relative_to(REPOSITORY)} {mode} ".encode())
            sha256.update(hashlib.sha256(file.read_bytes()).digest())
    return sha256.hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file
