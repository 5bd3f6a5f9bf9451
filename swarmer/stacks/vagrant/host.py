"""Whether this machine can run virtual machines as nodes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from swarmer import image as node_image
from swarmer.errors import HostError
from swarmer.image import Kind
from swarmer.shell import which
from swarmer.spec import Spec
from swarmer.stacks import findings, host_network
from swarmer.stacks.findings import Finding, Verdict, checked
from swarmer.stacks.vagrant import acceleration, providers
from swarmer.stacks.vagrant.libvirt_provider import Libvirt
from swarmer.state import ClusterHome


def examine(spec: Spec, home: ClusterHome) -> Iterator[Finding]:
    """Look at everything that matters to a cluster on this machine.

    If the image is built, its kernel is booted, which may take seconds.
    """
    name = providers.default_name()
    try:
        provider = providers.provider(name)
    except HostError as error:
        yield Finding("provider", Verdict.FAILS, error.message, error.hint)
        return
    yield checked(f"provider {name}", partial(provider.check, spec), "its programs are installed and answer")
    if provider.makes_network and which("ip"):
        yield host_network.examine(spec, home)
    if name == Libvirt.name:
        yield _acceleration()
    machines = "the machines of servers.yml"
    yield findings.memory(sum(server.memory for server in spec.servers), machines)
    most = max(server.cpus for server in spec.servers)
    yield findings.processors(min(most, len(spec.servers)), f"{machines} have up to {most} each, and share them")
    yield from findings.disks(spec, home, image_built=node_image.find(Kind.MACHINE) is not None)


def _acceleration() -> Finding:
    subject, image = "hardware acceleration", node_image.find(Kind.MACHINE)
    hint = acceleration.kvm_permission_hint()
    emulated = "machines are emulated, and take minutes to boot"
    if hint or not Path("/dev/kvm").exists():
        return Finding(subject, Verdict.LIMITED, f"/dev/kvm can't be used: {emulated}", hint or "enable virtualisation")
    if not image:
        return Finding(subject, Verdict.UNKNOWN, "/dev/kvm exists; whether it works is known once the image is built")
    try:
        found = acceleration.probed(image)
    except HostError as error:
        return Finding(subject, Verdict.FAILS, error.message, error.hint)
    if found.emulated:
        return Finding(
            subject, Verdict.LIMITED, f"guests hang with /dev/kvm: {emulated}", "use a host with working KVM"
        )
    return Finding(subject, Verdict.OK, f"the nodes' kernel boots within {found.boot_seconds} s")
