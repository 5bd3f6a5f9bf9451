"""The disk of a node: it boots without help, with BIOS and UEFI; its boxes contain what the providers read."""

import json
import re
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import needs_root, patience

from swarmer import image
from swarmer.image import Format
from swarmer.image.recipe import RECIPE
from swarmer.seed.cloudinit import SeedData
from swarmer.stacks.vagrant.seed_disk import write_seed_disk
from swarmer.wait import NotYet, until

pytestmark = needs_root("qemu-img", "qemu-system-x86_64")

#: Seconds without a further line of the console after which a machine doesn't boot any more; while it unpacks the
#: kernel, it prints none.
STALL = 120

#: Seconds after which it is too slow, whatever it prints.
BOOT = 1800

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_ITEM = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"


@pytest.fixture(scope="module")
def disk() -> Path:
    return image.disk(print)


def test_both_boot_loaders_start_the_kernel_with_the_same_command_line() -> None:
    bios = re.search("APPEND (.*)", (RECIPE / "machine/boot/syslinux.cfg").read_text())
    uefi = re.search("options (.*)", (RECIPE / "machine/boot/entry.conf").read_text())
    assert bios and uefi
    assert bios[1] == uefi[1]


@pytest.mark.parametrize("firmware", ["BIOS", "UEFI"])
def test_the_disk_boots(disk: Path, firmware: str, tmp_path: Path) -> None:
    with _machine(disk, firmware, tmp_path) as console:
        _wait_for("Welcome to .*Debian", console)
    output = console.read_text(errors="replace")
    assert ("BdsDxe" in output) == (firmware == "UEFI"), output  # printed by UEFI's boot manager


@pytest.mark.long
def test_a_node_finds_its_seed_on_the_drives_of_virtualbox(disk: Path, tmp_path: Path) -> None:
    """Disk and DVD are on one SATA controller, as in vagrant/Vagrantfile; libvirt uses another kind of controller."""
    config = json.dumps({"write_files": [{"path": "/dev/ttyS0", "content": "the seed was read\n", "append": True}]})
    seed = tmp_path / "seed.iso"
    write_seed_disk(seed, SeedData(f"#cloud-config\n{config}", '{"instance-id": "seeded"}\n', "version: 2\n"))
    with _machine(disk, "BIOS", tmp_path, sata_seed=seed) as console:
        _wait_for("the seed was read", console)


def test_a_disk_is_built_once_and_lists_its_packages(disk: Path) -> None:
    built = disk.stat()
    said: list[str] = []
    assert image.disk(said.append) == disk
    assert not said
    assert (disk.stat().st_ino, disk.stat().st_mtime_ns) == (built.st_ino, built.st_mtime_ns)
    information = json.loads(_output("qemu-img", "info", "--output=json", str(disk)))
    assert information["virtual-size"] == 8 * 2**30
    assert information["actual-size"] < 400e6
    found = image.find(image.Kind.MACHINE)
    assert found
    assert {"linux-image-cloud-amd64", "udev", "consul"} <= found.versions.keys()
    container = image.find()
    assert not container or "udev" not in container.versions


def test_the_box_for_libvirt_holds_the_disk_and_its_size(disk: Path) -> None:
    with tarfile.open(image.disk(print, Format.BOX)) as box:
        assert box.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        assert box.getmember("box.img").size == disk.stat().st_size
        metadata = box.extractfile("metadata.json")
        assert metadata
        assert json.load(metadata) == {"provider": "libvirt", "format": "qcow2", "virtual_size": 8}


def test_the_box_for_virtualbox_holds_a_disk_that_its_description_names(tmp_path: Path) -> None:
    with tarfile.open(image.disk(print, Format.BOX_VIRTUALBOX)) as box:
        box.extractall(tmp_path, filter="data")
    assert json.loads((tmp_path / "metadata.json").read_text()) == {"provider": "virtualbox"}
    envelope = ElementTree.parse(tmp_path / "box.ovf").getroot()
    file = envelope.find(f"{_OVF}References/{_OVF}File")
    described = envelope.find(f"{_OVF}DiskSection/{_OVF}Disk")
    assert file is not None and described is not None
    vmdk = tmp_path / file.attrib[f"{_OVF}href"]
    assert int(file.attrib[f"{_OVF}size"]) == vmdk.stat().st_size
    information = json.loads(_output("qemu-img", "info", "--output=json", str(vmdk)))
    assert information["format"] == "vmdk"
    assert information["format-specific"]["data"]["create-type"] == "streamOptimized"
    assert int(described.attrib[f"{_OVF}capacity"]) == information["virtual-size"]
    assert described.attrib[f"{_OVF}fileRef"] == file.attrib[f"{_OVF}id"]
    kinds = [item.text for item in envelope.iter(f"{_ITEM}ResourceType")]
    assert sorted(kinds, key=str) == ["10", "17", "20", "3", "4"]  # card, disk, controller, processor, memory


@contextmanager
def _machine(disk: Path, firmware: str, folder: Path, *, sata_seed: Path | None = None) -> Iterator[Path]:
    """Run a machine without a network on an overlay of the disk; yields the file with its console output.

    Args:
        sata_seed: the image in its DVD drive; the disk is then on the same controller.
    """
    overlay, console = folder / "disk.qcow2", folder / "console.log"
    _output("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "qcow2", str(overlay))
    words = ["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512", "-display", "none", "-nic", "none"]
    words += ["-serial", f"file:{console}"]
    if sata_seed:
        words += ["-drive", f"file={overlay},if=none,id=disk,cache=unsafe", "-device", "ide-hd,drive=disk,bus=ide.0"]
        words += ["-drive", f"file={sata_seed},if=none,id=seed,media=cdrom", "-device", "ide-cd,drive=seed,bus=ide.1"]
    else:
        words += ["-drive", f"file={overlay},if=virtio,cache=unsafe"]
    if firmware == "UEFI":
        shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", folder / "variables.fd")
        code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        words += ["-drive", f"if=pflash,format=raw,file={folder}/variables.fd"]
    with subprocess.Popen(["nice", "qemu-system-x86_64", *words], stdin=subprocess.DEVNULL) as process:
        try:
            yield console
        finally:
            process.kill()


def _wait_for(pattern: str, console: Path) -> None:
    def look() -> None:
        output = console.read_text(errors="replace") if console.exists() else ""
        if not re.search(pattern, output):
            raise NotYet(output)

    until(pattern, look, timeout=BOOT, stall=patience(STALL), interval=0.2)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
