"""Copying into and removing from libvirt's storage is atomic. A real libvirt, without a machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, needs_root

pytestmark = needs_root("qemu-img", "virsh")

_PROGRAM = """
from pathlib import Path
from swarmer.stacks.vagrant import libvirt
from swarmer.stacks.vagrant.libvirt import POOL, virsh
disk = Path("disk.qcow2")
libvirt.prepare_pool()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder of programs, with a disk that isn't empty."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"box" * 2**20)
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(tmp_path / "disk.qcow2")]
    subprocess.run(words, check=True)
    return tmp_path


def _run(folder: Path, program: str) -> list[str]:
    """Run a program with a running libvirt, and return the lines of its output."""
    words = [str(REPOSITORY / "bin/with-libvirt"), sys.executable, "-c", _PROGRAM + program]
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_an_incomplete_copy_of_a_box_is_replaced(folder: Path) -> None:
    program = """
virsh("vol-create-as", POOL, "swarmer-test-box", "3M", "--format", "qcow2")
libvirt.put_box("swarmer-test-box", disk)
virsh("vol-download", "swarmer-test-box", "copy", "--pool", POOL)
print(Path("copy").read_bytes() == disk.read_bytes())
libvirt.remove_box("swarmer-test-box", unless=lambda: False)
"""
    assert _run(folder, program) == ["True"]


def test_an_existing_box_is_not_copied_again(folder: Path) -> None:
    program = """
libvirt.put_box("swarmer-test-box", disk)
before = virsh("vol-dumpxml", "swarmer-test-box", "--pool", POOL)
libvirt.put_box("swarmer-test-box", disk)
print(virsh("vol-dumpxml", "swarmer-test-box", "--pool", POOL) == before)
libvirt.remove_box("swarmer-test-box", unless=lambda: False)
"""
    assert _run(folder, program) == ["True"]


def test_a_box_is_removed_once_no_disk_is_an_overlay_of_it(folder: Path) -> None:
    program = """
libvirt.put_box("swarmer-test-box", disk)
libvirt.put_overlay("swarmer-test-node.img", "swarmer-test-box", 2**22)
libvirt.remove_box("swarmer-test-box", unless=lambda: False)
print(sorted(libvirt.volumes()))
libvirt.remove_volume("swarmer-test-node.img")
libvirt.remove_box("swarmer-test-box", unless=lambda: True)
print(sorted(libvirt.volumes()))
libvirt.remove_box("swarmer-test-box", unless=lambda: False)
print(sorted(libvirt.volumes()))
"""
    kept, wanted, gone = _run(folder, program)
    assert "swarmer-test-box" in kept
    assert "swarmer-test-box" in wanted
    assert "swarmer-test-box" not in gone


def test_volumes_are_removed_even_if_the_pool_is_inactive(folder: Path) -> None:
    program = """
libvirt.put_box("swarmer-test", disk)
virsh("pool-destroy", POOL)
libvirt.remove_volume("swarmer-test")
print("swarmer-test" in libvirt.volumes())
"""
    assert _run(folder, program) == ["False"]
