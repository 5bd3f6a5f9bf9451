"""The choice of Vagrant's provider, and the removal of a provider's resources."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from swarmer.errors import HostError, SwarmerError
from swarmer.ledger import Ledger, Resource
from swarmer.stacks import host_network
from swarmer.stacks.vagrant import libvirt, virtualbox
from swarmer.stacks.vagrant.libvirt_provider import START_HINT, Libvirt
from swarmer.stacks.vagrant.provider import Provider
from swarmer.stacks.vagrant.virtualbox_provider import VirtualBox
from swarmer.state import cluster_homes

_PROVIDERS: Final[dict[str, type[Provider]]] = {Libvirt.name: Libvirt, VirtualBox.name: VirtualBox}


def default_name() -> str:
    """The provider that Vagrant would choose: the one in its variables, else VirtualBox if installed, else libvirt.

    https://developer.hashicorp.com/vagrant/docs/providers/basic_usage
    """
    if given := os.environ.get("VAGRANT_DEFAULT_PROVIDER"):
        return given
    preferred = [name.strip() for name in os.environ.get("VAGRANT_PREFERRED_PROVIDERS", "").split(",")]
    order = [*(name for name in preferred if name in _PROVIDERS), VirtualBox.name]
    return next((name for name in order if shutil.which(_PROVIDERS[name].command)), Libvirt.name)


def provider(name: str) -> Provider:
    """The provider of that name.

    Raises:
        HostError: swarmer doesn't support it.
    """
    if name not in _PROVIDERS:
        raise HostError(
            f"swarmer doesn't support Vagrant's provider {name}",
            hint=f"set VAGRANT_DEFAULT_PROVIDER to one of: {', '.join(_PROVIDERS)}",
        )
    return _PROVIDERS[name]()


def remove(resource: Resource, cluster: str) -> None:
    """Remove one resource of a ledger; a resource that doesn't exist is not an error.

    Raises:
        HostError: the resource still exists, and the hypervisor doesn't answer.
    """
    if resource.kind == "fence":
        host_network.release_subnet(resource.id)
        return
    if resource.kind == "vm":
        virtualbox.remove(resource.id)
        return
    if not libvirt.answers():
        if Path("/run/systemd/system").exists():
            # libvirt is only stopped, and may have the resource in a form that isn't visible from outside.
            raise HostError(
                f"cannot remove {resource.kind} {resource.id} of {cluster}: cannot connect to libvirt", hint=START_HINT
            )
        # A libvirt that runs only during a command (bin/with-libvirt) removes everything when it ends.
        if left := libvirt.left_without_libvirt(resource.id):
            raise HostError(f"{left} of {cluster} still exists: cannot connect to libvirt", hint=START_HINT)
        if resource.kind == "domain":
            libvirt.remove_control_groups(resource.id)
        return
    match resource.kind:
        case "domain":
            libvirt.remove_domain(resource.id)
        case "volume":
            libvirt.remove_volume(resource.id)
        case "box":
            libvirt.remove_box(resource.id, unless=lambda: _another_lists(resource, cluster))
        case "network":
            libvirt.remove_network(resource.id)
        case other:
            raise AssertionError(f"unknown kind of resource in the vagrant stack: {other}")


def _another_lists(box: Resource, cluster: str) -> bool:
    """Whether the ledger of another cluster lists the box, so its machines are or will be overlays of it."""
    for home in cluster_homes():
        with suppress(SwarmerError):
            if home.name != cluster and box in Ledger.load(home).resources:
                return True
    return False


def kill(resources: Sequence[Resource]) -> None:
    """Switch off every machine of a ledger whose hypervisor answers."""
    machines = [resource for resource in resources if resource.kind in ("domain", "vm")]
    for machine in machines:
        if machine.kind == "vm":
            virtualbox.pull_the_plug(machine.id)
        elif libvirt.answers():
            libvirt.pull_the_plug(machine.id)
