"""Removing layers that are no longer needed."""

from pathlib import Path

from swarmer.image import recipe, store
from swarmer.image.build import Report, one_builder


def prune(report: Report) -> list[tuple[str, int]]:
    """Remove every layer that neither the current recipe nor a cluster under this SWARMER_HOME uses.

    Args:
        report: receives a line if this has to wait for another process that builds.

    Returns:
        The name of each removed layer, and its size in bytes.
    """
    removed = []
    with one_builder(report):
        needed = {str(recipe.disk()), *(str(layer) for kind in recipe.Kind for layer in recipe.layers(kind))}
        for folder in sorted(store.store().iterdir()):
            if folder.is_dir() and folder.name not in needed:
                taken = size(folder)
                if not store.users([folder.name]):  # checked last: a cluster may have been started meanwhile
                    store.remove(folder)
                    removed.append((folder.name, taken))
    return removed


def size(folder: Path) -> int:
    """Bytes that the content of a folder takes on disk; hard links count once."""
    files = {(entry.st_dev, entry.st_ino): entry for path in folder.rglob("*") if (entry := path.lstat())}
    return sum(entry.st_blocks * 512 for entry in files.values())
