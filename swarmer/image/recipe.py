"""What the node image is made of, and the digests that say whether it was built already.

The image has up to four layers, each cached by the content of its recipe: `base` (Debian packages, about a minute),
`consul` (only with `SWARMER_CONSUL`), `machine` (a kernel and its company, only for nodes that are machines of their
own), and `node` (our own files, seconds).
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.state import REPOSITORY

RECIPE = REPOSITORY / "image"
SUITE = "trixie"

#: Files of this package that nodes run or read, relative to the repository.
NODE_MODULES = ("swarmer/__init__.py", "swarmer/ports.py", "swarmer/node")

#: What else the layer `node` is made from.
NODE_FILES = ("customize.sh", "masked.txt", "node-requirements.txt", "rootfs")

#: What the layer `machine` is made from.
MACHINE_FILES = ("install.sh", "packages.txt", "masked.txt", "generators.txt", "rootfs", "vagrant.pub")

#: What makes a disk of an image, relative to the repository.
DISK_FILES = ("image/machine/disk.sh", "image/machine/boot", "image/machine/box")


class Kind(StrEnum):
    """What boots the image: the kernel of the host, or one of its own."""

    CONTAINER = "container"
    MACHINE = "machine"


@dataclass(frozen=True)
class Layer:
    """One layer of the image: its name in the store, `NAME-DIGEST`."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}-{self.digest}"


@dataclass(frozen=True)
class ConsulBinary:
    """Another consul than Debian's, from `SWARMER_CONSUL` and `SWARMER_CONSUL_SHA256`."""

    path: Path
    sha256: str

    def content(self) -> bytes:
        """The executable itself, out of its zip if it came in one.

        Raises:
            HostError: the file isn't there, isn't what the checksum says, or holds no consul.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise HostError(
                f"SWARMER_CONSUL names {self.path}, which can't be read: {error.strerror}",
                hint="name a consul binary or its release zip, or unset SWARMER_CONSUL to use Debian's",
            ) from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise HostError(
                f"{self.path} has the sha256 {found}, not {self.sha256 or 'any that was given'}",
                hint="set SWARMER_CONSUL_SHA256 to the checksum its publisher states",
            )
        if data[:4] == b"\x7fELF":
            return data
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read("consul")
        except (zipfile.BadZipFile, KeyError) as error:
            raise HostError(
                f"{self.path} is neither an executable nor a zip with one named consul",
                hint="take the release zip for linux, or the binary out of it",
            ) from error


def consul_binary() -> ConsulBinary | None:
    """The consul that the environment names, or None for Debian's."""
    if not (path := os.environ.get("SWARMER_CONSUL")):
        return None
    return ConsulBinary(Path(path).expanduser(), os.environ.get("SWARMER_CONSUL_SHA256", "").lower())


def layers(kind: Kind = Kind.CONTAINER) -> list[Layer]:
    """The layers of the image as its recipe stands now, lowest first."""
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
    """The disk of the machine image, as the recipe stands now; kept beside the layers."""
    return Layer("disk", digest(*(REPOSITORY / name for name in DISK_FILES), salt=str(layers(Kind.MACHINE)[-1])))


def apt_sources() -> list[str]:
    """The apt lines to build from: this machine's own Debian mirror, or nothing for mmdebstrap's default."""
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
    """Twelve characters that change whenever one of these files does, or what `salt` stands for."""
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
