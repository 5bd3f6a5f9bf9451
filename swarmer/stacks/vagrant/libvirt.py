"""Controls libvirt by virsh: the domains, volumes and networks of a cluster."""

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
from swarmer.files import take_lock
from swarmer.seed.cloudinit import SeedData
from swarmer.shell import run
from swarmer.stacks import control_groups
from swarmer.stacks.vagrant.seed_disk import write_seed_disk
from swarmer.state import cache_home

URI = "qemu:///system"

#: The pool that vagrant-libvirt uses; like `prepare_pool`, it creates the pool if it doesn't exist.
POOL = "default"
_POOL_FOLDER = Path("/var/lib/libvirt/images")

#: Where libvirt stores the definitions of domains and, in `networks`, of networks.
_DEFINITIONS = Path("/etc/libvirt/qemu")

#: Seconds that a libvirt command may take; emulated machines may keep every processor busy.
_TIMEOUT = 600.0

#: The size of a seed volume in bytes; seed data takes about 60 KiB.
_SEED_SIZE = 2**20


def virsh(*words: str | Path, check: bool = True) -> str:
    """Run a virsh command and return its output.

    Raises:
        HostError: the command failed (with `check`), or libvirt doesn't answer.
    """
    return run(["virsh", "--quiet", "--connect", URI, *words], check=check, timeout=_TIMEOUT).stdout


def answers() -> bool:
    """Whether this user can connect to libvirt."""
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
    """Switch a domain off immediately; it may already be off, or not exist.

    Raises:
        HostError: the domain is still running.
    """
    virsh("destroy", domain, check=False)
    if running(domain):
        raise HostError(f"cannot switch off domain {domain}", hint=f"run `virsh destroy {domain}` to see the reason")


def resident_memory(domain: str) -> int | None:
    """The host's memory that the domain uses, in bytes; None if libvirt doesn't report it."""
    for line in virsh("dommemstat", domain, check=False).splitlines():
        name, _, value = line.partition(" ")
        if name == "rss":
            return int(value) * 1024
    return None


def remove_domain(domain: str) -> None:
    """Switch a domain off and undefine it; it need not exist."""
    pull_the_plug(domain)
    if domain in domains():
        virsh("undefine", domain, "--managed-save", "--snapshots-metadata", "--nvram")
    remove_control_groups(domain)


def remove_control_groups(domain: str) -> None:
    """Remove the control groups of a domain whose libvirt was killed first; needed on hosts without systemd."""
    for mount in set(control_groups.mounts().values()):
        for group in mount.glob(f"machine/qemu-*-{domain}.libvirt-qemu"):
            control_groups.remove(group)


# -- volumes -----------------------------------------------------------------------------------------------


def prepare_pool() -> None:
    """Create and start the pool, unless that has been done."""
    if POOL not in virsh("pool-list", "--all", "--name").split():
        virsh("pool-define-as", POOL, "dir", "--target", _POOL_FOLDER)
        virsh("pool-build", POOL)
        virsh("pool-autostart", POOL)
    _start_pool()


def _start_pool() -> bool:
    """Start the pool, and return whether it exists. If something else created it, it may not start with the host."""
    if POOL not in virsh("pool-list", "--all", "--name").split():
        return False
    if POOL not in virsh("pool-list", "--name").split():
        virsh("pool-start", POOL)
    return True


def volumes() -> list[str]:
    """The names of all volumes that libvirt lists in the pool; other files in its folder are ignored."""
    return [line.split()[0] for line in virsh("vol-list", POOL).splitlines() if line.strip()]


def put_box(volume: str, disk: Path) -> None:
    """Copy a qcow2 disk into a new volume, unless it already exists.

    vagrant-libvirt would do the same, but takes ten times as long.
    """
    with _boxes():
        if volume in volumes():
            if _bytes_of(volume) == disk.stat().st_size:
                return
            # An earlier copy was interrupted.
            virsh("vol-delete", volume, "--pool", POOL)
        size = json.loads(run(["qemu-img", "info", "--output=json", disk], timeout=_TIMEOUT).stdout)["virtual-size"]
        virsh("vol-create-as", POOL, volume, str(size), "--format", "qcow2")
        try:
            virsh("vol-upload", volume, disk, "--pool", POOL)
        except BaseException:
            virsh("vol-delete", volume, "--pool", POOL, check=False)
            raise


def remove_box(volume: str, *, unless: Callable[[], bool]) -> None:
    """Remove the volume of a box, unless another volume is an overlay of it; it need not exist.

    Args:
        unless: whether another cluster is about to use it; called while no other process can add boxes.
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
    """The size of the volume's file, in bytes."""
    return int(_description(volume).findtext("physical") or 0)


def _description(volume: str) -> ElementTree.Element:
    return ElementTree.fromstring(virsh("vol-dumpxml", volume, "--pool", POOL))


@contextmanager
def _boxes() -> Iterator[None]:
    """Prevent other processes from adding or removing boxes for the duration of the block."""
    cache_home().mkdir(parents=True, exist_ok=True)
    # Read-only, because root may have created the file.
    lock = os.open(cache_home() / "box.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        take_lock(lock, "another process that adds or removes a box", timeout=_TIMEOUT)
        yield
    finally:
        os.close(lock)


def put_seed(volume: str, seed: SeedData | None, folder: Path) -> None:
    """Create a volume with seed data for cloud-init; an empty one without seed data.

    Args:
        folder: the node's folder, for a temporary file with the secrets.
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
    """The name of the volume under an overlay, and the overlay's size in bytes.

    Raises:
        HostError: the volume isn't an overlay.
    """
    description = _description(volume)
    path, capacity = description.findtext("backingStore/path"), description.findtext("capacity")
    if not path or not capacity:
        raise HostError(f"volume {volume} has no backing volume, so it can't be recreated")
    return Path(path).name, int(capacity)


def put_overlay(volume: str, backing: str, size: int) -> None:
    """Create an empty overlay over another volume; an existing volume of that name is replaced."""
    remove_volume(volume)
    words = [volume, str(size), "--format", "qcow2", "--backing-vol", backing, "--backing-vol-format", "qcow2"]
    virsh("vol-create-as", POOL, *words)


def remove_volume(volume: str) -> None:
    """Remove a volume; it need not exist."""
    if _start_pool() and volume in volumes():
        virsh("vol-delete", volume, "--pool", POOL)


# -- networks ----------------------------------------------------------------------------------------------


def define_network(name: str, bridge: str, host: IPv4Address, network: IPv4Network, *, internet: bool) -> None:
    """Create a network that includes the host, without DHCP and DNS."""
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
    """Remove a network; it need not exist."""
    if name in virsh("net-list", "--all", "--name").split():
        virsh("net-destroy", name, check=False)
        virsh("net-undefine", name)


def left_without_libvirt(name: str) -> str:
    """The file or process that is left of a domain, volume or network, for a message; empty if nothing is left.

    For use while libvirt doesn't answer.
    """
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
