"""Where nodes run: one module per stack, none imports another."""

from swarmer.errors import HostError
from swarmer.stacks.base import Capability, Stack
from swarmer.stacks.nspawn.stack import NspawnStack
from swarmer.stacks.vagrant.stack import VagrantStack

__all__ = ["Capability", "Stack", "stack_class"]

_STACKS: dict[str, type[Stack]] = {NspawnStack.name: NspawnStack, VagrantStack.name: VagrantStack}


def stack_class(name: str) -> type[Stack]:
    """The stack of that name.

    Raises:
        HostError: swarmer can't boot nodes there.
    """
    try:
        return _STACKS[name]
    except KeyError:
        raise HostError(
            f"the stack {name} can't be used yet", hint=f"use one of: {', '.join(sorted(_STACKS))}"
        ) from None
