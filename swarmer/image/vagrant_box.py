"""Vagrant boxes: archives of a node's disk, with the metadata that the provider requires.

Sources: Vagrant's documentation of box files; for libvirt, the box format of vagrant-libvirt, version 1.
"""

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from swarmer.image.build import Report, stream
from swarmer.image.recipe import RECIPE
from swarmer.shell import run


def for_libvirt(disk: Path, box: Path) -> None:
    """Write a box with the qcow2 disk, which is already compressed."""
    size = json.loads(run(["qemu-img", "info", "--output=json", disk]).stdout)["virtual-size"]
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-size // 2**30)}
    _write(box, {"box.img": disk}, metadata)


def for_virtualbox(disk: Path, box: Path, report: Report) -> None:
    """Write a box with an OVF and a VMDK, which VirtualBox imports."""
    with tempfile.TemporaryDirectory(dir=box.parent, prefix="vmdk-") as folder:
        vmdk = Path(folder, "box-disk001.vmdk")
        stream(
            ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", str(disk), str(vmdk)],
            report,
        )
        ovf = Path(folder, "box.ovf")
        capacity = json.loads(run(["qemu-img", "info", "--output=json", vmdk]).stdout)["virtual-size"]
        template = (RECIPE / "machine/box/box.ovf").read_text()
        ovf.write_text(template.replace("@SIZE@", str(vmdk.stat().st_size)).replace("@CAPACITY@", str(capacity)))
        _write(box, {"box.ovf": ovf, vmdk.name: vmdk}, {"provider": "virtualbox"})


def _write(box: Path, files: Mapping[str, Path], metadata: Mapping[str, object]) -> None:
    """Write the archive; the same files yield the same archive."""
    with tarfile.open(box, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "metadata.json", json.dumps(metadata, indent=1).encode() + b"\n")
        _add(archive, "Vagrantfile", (RECIPE / "machine/box/Vagrantfile").read_bytes())
        for name, path in files.items():
            header = tarfile.TarInfo(name)
            header.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(header, content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))
