"""Built images in the cache folder: one folder per layer, either complete or absent."""

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from swarmer.errors import SwarmerError
from swarmer.image import recipe
from swarmer.ledger import Ledger
from swarmer.state import cache_home, cluster_homes


@dataclass(frozen=True)
class Image:
    """A built node image: directory trees to be stacked by overlayfs.

    Attributes:
        id: the digest of the image's recipe.
        roots: the root directory of each layer, lowest first.
        versions: the version of each Debian package, and of `consul`, in the image.
    """

    id: str
    roots: tuple[Path, ...]
    versions: dict[str, str]

    @property
    def lowerdir(self) -> str:
        """The layers in overlayfs' notation, topmost first."""
        return ":".join(str(root) for root in reversed(self.roots))

    @property
    def consul_version(self) -> tuple[int, ...]:
        """The consul version as numbers, such as `(1, 8, 7)`."""
        plain = self.versions["consul"].split("+")[0].split("-")[0].removeprefix("v")
        return tuple(int(part) for part in plain.split(".")[:3])


def store() -> Path:
    """The folder that holds every layer."""
    return cache_home() / "images"


def layer_folder(layer: recipe.Layer) -> Path:
    """The folder of a layer, whether it is built yet or not."""
    return store() / str(layer)


def users(layers: Collection[str]) -> list[str]:
    """The names of the clusters under this SWARMER_HOME whose nodes run on one of these layers."""
    return [home.name for home in cluster_homes() if not set(Ledger.load(home).layers).isdisjoint(layers)]


def check_unused(layers: Collection[str]) -> None:
    """Check that no node runs on these layers, before they are replaced in place.

    Raises:
        SwarmerError: nodes run on them.
    """
    if clusters := users(layers):
        raise SwarmerError(
            f"nodes run on this image: {', '.join(clusters)}",
            hint="remove these clusters first: `swarmer down NAME`",
        )


def remove(folder: Path) -> None:
    """Remove a layer, if it exists. It is renamed first, so that it is either complete or absent."""
    doomed = folder.with_name(f"{folder.name}.old.partial")
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.exists():
        folder.rename(doomed)
        shutil.rmtree(doomed)


def find(kind: recipe.Kind = recipe.Kind.CONTAINER) -> Image | None:
    """The image of the current recipe, or None if it is not built yet."""
    layers = recipe.layers(kind)
    folders = [layer_folder(layer) for layer in layers]
    if not all((folder / "versions.json").exists() for folder in folders):
        return None
    versions: dict[str, str] = {}
    for folder in folders:
        versions |= json.loads((folder / "versions.json").read_text())
    return Image(
        id=layers[-1].digest,
        roots=tuple(folder / "root" for folder in folders),
        versions=versions,
    )
