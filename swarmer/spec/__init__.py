"""The spec: the content of `servers.yml` as immutable, valid values."""

from swarmer.spec.model import PRIVATE_BLOCKS, Spec, for_worker
from swarmer.spec.stacks import STACKS
from swarmer.spec.values import NAME_PATTERN, ConsulRole, Registry, Server, SwarmRole

__all__ = [
    "NAME_PATTERN",
    "PRIVATE_BLOCKS",
    "STACKS",
    "ConsulRole",
    "Registry",
    "Server",
    "Spec",
    "SwarmRole",
    "for_worker",
]
