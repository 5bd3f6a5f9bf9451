"""The node image: what it is made of, building it, and finding it again."""

from swarmer.image.build import build
from swarmer.image.store import Image, find

__all__ = ["Image", "build", "find"]
