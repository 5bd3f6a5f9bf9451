"""The former name of `swarmer.node.slowness`, for the registry."""

from swarmer.node.slowness import scaled as patient

__all__ = ["patient"]
