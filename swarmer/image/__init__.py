"""The node image: its recipe, building it, finding built ones, and removing old ones."""

from swarmer.image.build import build
from swarmer.image.disk import Format, disk
from swarmer.image.prune import prune, size
from swarmer.image.recipe import Kind
from swarmer.image.store import Image, find

__all__ = ["Format", "Image", "Kind", "build", "disk", "find", "prune", "size"]
