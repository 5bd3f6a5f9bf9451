"""Removing the layers that nobody needs any more."""

from pathlib import Path

from swarmer.image import recipe, store
from swarmer.image.build import Report, one_builder


def prune(report: Report) -> list[tuple[str, int]]:
    """Remove every layer that isn't of the recipe as it stands, and that no cluster under this SWARMER_HOME uses.

    Args:
        report: gets a line when another process builds, and is waited for.

    Returns:
        The name of each removed layer, and the bytes it took.
    """
    removed = []
    with one_builder(report):
        needed = {str(recipe.disk()), *(str(layer) for kind in recipe.Kind for layer in recipe.layers(kind))}
        for folder in sorted(store.store().iterdir()):
            if folder.is_dir() and folder.name not in needed:
                taken = size(folder)
                if not store.users([folder.name]):  # last of all: a cluster may have begun meanwhile
                    store.remove(folder)
                    removed.append((folder.name, taken))
    return removed


def size(folder: Path) -> int:
    """Bytes on disk of all that is in a folder; what is linked twice counts once."""
    files = {(entry.st_dev, entry.st_ino): entry for path in folder.rglob("*") if (entry := path.lstat())}
    return sum(entry.st_blocks * 512 for entry in files.values())
