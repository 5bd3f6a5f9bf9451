"""Where nodes run: one package per stack; none imports another."""

import importlib
from typing import Final

from swarmer.errors import HostError
from swarmer.ledger import Ledger
from swarmer.stacks.base import Capability, Stack

__all__ = ["Capability", "Stack", "stack_class", "stack_of"]

#: Module and class of each stack. A module is imported on first use, so that a cluster of one stack doesn't need the
#: libraries of the others.
_CLASSES: Final = {
    "nspawn": ("swarmer.stacks.nspawn.stack", "NspawnStack"),
    "vagrant": ("swarmer.stacks.vagrant.stack", "VagrantStack"),
}


def stack_class(name: str) -> type[Stack]:
    """The class of the stack with that name.

    Raises:
        HostError: the stack isn't implemented.
    """
    if name not in _CLASSES:
        raise HostError(f"stack {name!r} is not implemented", hint=f"use one of: {', '.join(_CLASSES)}")
    module, attribute = _CLASSES[name]
    found: type[Stack] = getattr(importlib.import_module(module), attribute)
    return found


def stack_of(ledger: Ledger) -> Stack:
    """The stack of the cluster that a ledger describes.

    Raises:
        HostError: the stack isn't implemented.
    """
    return stack_class(ledger.spec.stack)(ledger)
