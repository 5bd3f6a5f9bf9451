"""libvirt, by way of virsh: the domains, volumes and networks of a cluster, and their power."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from xml.etree import ElementTree

from swarmer.errors import HostError
from swarmer.seed.cloudinit import SeedData
from swarmer.shell import run
from swarmer.stacks import control_groups
from swarmer.stacks.vagrant.seed_disk import write_seed_disk
from swarmer.state import cache_home

URI = "qemu:///system"

#: The pool that vagrant-libvirt uses, and makes when it isn't there, as we do.
POOL = "default"
_POOL_FOLDER = Path("/var/lib/libvirt/images")

#: Where libvirt keeps what it knows of domains, and in `networks` of networks.
_DEFINITIONS = Path("/etc/libvirt/qemu")

#: Seconds for a command of libvirt's: machines that are emulated may keep every processor busy.
_TIMEOUT = 600.0

#: Bytes of a seed volume; a seed takes some 60 KiB.
_SEED_SIZE = 2**20


def virsh(*words: str | Path, check: bool = True) -> str:
    """What a command of virsh prints.

    Raises:
        HostError: it failed (with `check`), or libvirt doesn't answer.
    """
    return run(["virsh", "--quiet", "--connect", URI, *words], check=check, timeout=_TIMEOUT).stdout


def answers() -> bool:
    """Whether a libvirt answers that we may use."""
    return (
        shutil.which("virsh") is not None
        and run(["virsh", "--connect", URI, "version"], check=False, timeout=_TIMEOUT).returncode == 0
    )


# -- domains -----------------------------------------------------------------------------------------------


def domains() -> list[str]:
    """The names of all domains, switched on or not."""
    return virsh("list", "--all", "--name").split()


def running(domain: str) -> bool:
    """Whether the domain is switched on."""
    return virsh("domstate", domain, check=False).split("\n")[0] == "running"


def start(domain: str) -> None:
    """Switch a domain on."""
    virsh("start", domain)


def pull_the_plug(domain: str) -> None:
    """Switch a domain off at once; one that is off, or isn't there, stays so.

    Raises:
        HostError: it goes on.
    """
    virsh("destroy", domain, check=False)
    if running(domain):
        raise HostError(f"the domain {domain} can't be switched off", hint=f"see what `virsh destroy {domain}` says")


def resident_memory(domain: str) -> int | None:
    """Bytes of the host's memory that the domain takes."""
    for line in virsh("dommemstat", domain, check=False).splitlines():
        name, _, value = line.partition(" ")
        if name == "rss":
            return int(value) * 1024
    return None


def remove_domain(domain: str) -> None:
    """Switch a domain off and forget it; it need not be there."""
    pull_the_plug(domain)
    if domain in domains():
        virsh("undefine", domain, "--managed-save", "--snapshots-metadata", "--nvram")
    remove_control_groups(domain)


def remove_control_groups(domain: str) -> None:
    """Remove what a libvirt leaves that was killed before the domain, where no systemd looks after it."""
    for mount in set(control_groups.mounts().values()):
        for group in mount.glob(f"machine/qemu-*-{domain}.libvirt-qemu"):
            control_groups.remove(group)


# -- volumes -----------------------------------------------------------------------------------------------


def prepare_pool() -> None:
    """Make the pool, and switch it on, where that wasn't done yet."""
    if POOL not in virsh("pool-list", "--all", "--name").split():
        virsh("pool-define-as", POOL, "dir", "--target", _POOL_FOLDER)
        virsh("pool-build", POOL)
        virsh("pool-autostart", POOL)
    _start_pool()


def _start_pool() -> bool:
    """Switch the pool on; whether there is one. Who else made it may not have it started with the host."""
    if POOL not in virsh("pool-list", "--all", "--name").split():
        return False
    if POOL not in virsh("pool-list", "--name").split():
        virsh("pool-start", POOL)
    return True


def volumes() -> list[str]:
    """The names of all volumes of the pool that libvirt has made; what else is in its folder is nobody's business."""
    return [line.split()[0] for line in virsh("vol-list", POOL).splitlines() if line.strip()]


def put_box(volume: str, disk: Path) -> None:
    """Make a volume that is a copy of a qcow2 disk, unless it is there already.

    vagrant-libvirt would do so too, ten times as slowly.
    """
    with _boxes():
        if volume in volumes():
            if _bytes_of(volume) == disk.stat().st_size:
                return
            # Who copied it was killed meanwhile.
            virsh("vol-delete", volume, "--pool", POOL)
        size = json.loads(run(["qemu-img", "info", "--output=json", disk], timeout=_TIMEOUT).stdout)["virtual-size"]
        virsh("vol-create-as", POOL, volume, str(size), "--format", "qcow2")
        try:
            virsh("vol-upload", volume, disk, "--pool", POOL)
        except BaseException:
            virsh("vol-delete", volume, "--pool", POOL, check=False)
            raise


def remove_box(volume: str, *, unless: Callable[[], bool]) -> None:
    """Remove the volume of a box; it need not be there, and stays while another volume is an overlay of it.

    Args:
        unless: whether somebody is about to need it; asked while nobody can put it there.
    """
    with _boxes():
        if _start_pool() and not unless() and not _has_overlays(volume):
            remove_volume(volume)


def _has_overlays(box: str) -> bool:
    return any(
        Path(_description(volume).findtext("backingStore/path") or "").name == box
        for volume in volumes()
        if volume.startswith("swarmer-") and volume.endswith(".img") and volume != box
    )


def _bytes_of(volume: str) -> int:
    """How long the volume's file is."""
    return int(_description(volume).findtext("physical") or 0)


def _description(volume: str) -> ElementTree.Element:
    return ElementTree.fromstring(virsh("vol-dumpxml", volume, "--pool", POOL))


@contextmanager
def _boxes() -> Iterator[None]:
    """Nobody else puts or removes a box meanwhile."""
    cache_home().mkdir(parents=True, exist_ok=True)
    # Not for writing: it may have been root who made it.
    lock = os.open(cache_home() / "box.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def put_seed(volume: str, seed: SeedData | None, folder: Path) -> None:
    """Make a volume that cloud-init finds the seed data on; an empty one without.

    Args:
        folder: the node's own, where the secrets are until they are in the volume.
    """
    remove_volume(volume)
    virsh("vol-create-as", POOL, volume, str(_SEED_SIZE), "--format", "raw")
    if not seed:
        return
    disk = folder / "seed.iso"
    try:
        write_seed_disk(disk, seed)
        virsh("vol-upload", volume, disk, "--pool", POOL)
    finally:
        disk.unlink(missing_ok=True)


def backing_volume(volume: str) -> tuple[str, int]:
    """The name of the volume that another one is an overlay of, and the overlay's size in bytes."""
    description = _description(volume)
    path, capacity = description.findtext("backingStore/path"), description.findtext("capacity")
    if not path or not capacity:
        raise HostError(f"the volume {volume} has no volume under it, so no fresh one can be made")
    return Path(path).name, int(capacity)


def put_overlay(volume: str, backing: str, size: int) -> None:
    """Make an empty overlay over another volume, in the place of an older one."""
    remove_volume(volume)
    words = [volume, str(size), "--format", "qcow2", "--backing-vol", backing, "--backing-vol-format", "qcow2"]
    virsh("vol-create-as", POOL, *words)


def remove_volume(volume: str) -> None:
    """Remove a volume; it need not be there."""
    if _start_pool() and volume in volumes():
        virsh("vol-delete", volume, "--pool", POOL)


# -- networks ----------------------------------------------------------------------------------------------


def define_network(name: str, bridge: str, host: IPv4Address, network: IPv4Network, *, internet: bool) -> None:
    """Make a network with the host in it, and nobody who hands out addresses or answers names."""
    forward = '<forward mode="nat"/>' if internet else ""
    description = f"""
        <network ipv6="no">
          <name>{name}</name>
          <bridge name="{bridge}" stp="off" delay="0"/>
          {forward}
          <dns enable="no"/>
          <ip address="{host}" netmask="{network.netmask}"/>
        </network>
    """
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(description)
        file.flush()
        virsh("net-define", file.name)
    virsh("net-start", name)


def remove_network(name: str) -> None:
    """Remove a network; it need not be there."""
    if name in virsh("net-list", "--all", "--name").split():
        virsh("net-destroy", name, check=False)
        virsh("net-undefine", name)


def left_without_libvirt(name: str) -> str:
    """What there still is of a domain, a volume or a network while no libvirt answers, in words; empty for nothing."""
    for file in (_POOL_FOLDER / name, _DEFINITIONS / f"{name}.xml", _DEFINITIONS / f"networks/{name}.xml"):
        if file.exists():
            return f"the file {file}"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(f"guest={name},".encode()) for word in words):
            return f"the process {process.name}"
    return ""
