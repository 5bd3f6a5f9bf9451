"""The machine image as a bootable disk, in the formats of hypervisors and Vagrant."""

import os
import shutil
from enum import StrEnum
from pathlib import Path

from swarmer.errors import HostError, needs_root
from swarmer.image import recipe, store, vagrant_box
from swarmer.image.build import Report, build, one_builder, stream
from swarmer.image.recipe import RECIPE, Kind
from swarmer.shell import which

_TOOLS = ("qemu-img", "mke2fs", "mkfs.fat", "mcopy", "syslinux", "sfdisk")
_FILES = ("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "/usr/lib/syslinux/mbr/gptmbr.bin")


class Format(StrEnum):
    """The formats of a disk.

    Attributes:
        QCOW2: compressed; all others are converted from it.
        RAW: sparse.
        BOX: a Vagrant box for the provider libvirt.
        BOX_VIRTUALBOX: a Vagrant box for the provider VirtualBox.
    """

    QCOW2 = "qcow2"
    RAW = "raw"
    BOX = "box"
    BOX_VIRTUALBOX = "box-virtualbox"

    @property
    def file_name(self) -> str:
        """The name of the file in the disk's folder."""
        return {"box": "libvirt.box", "box-virtualbox": "virtualbox.box"}.get(self, f"disk.{self}")


def disk(report: Report, form: Format = Format.QCOW2, *, fresh: bool = False) -> Path:
    """The disk of the current recipe; whatever is missing is built.

    Args:
        report: receives one line of progress at a time.
        fresh: build the layers again too, to pick up newer packages.

    Raises:
        HostError: something is missing on this machine, or a build step failed; the message has its last lines.
    """
    layer = recipe.disk()
    folder = store.layer_folder(layer)
    wanted = folder / form.file_name
    if wanted.exists() and not fresh:
        return wanted
    _check_tools(form)
    if fresh:
        build(report, kind=Kind.MACHINE, fresh=True)
        with one_builder(report):
            store.remove(folder)
    if not folder.exists():
        image = build(report, kind=Kind.MACHINE)
        with one_builder(report):
            if not folder.exists():
                report(f"building the disk {layer} (about ten seconds)")
                _build(folder, image, report)
    with one_builder(report):
        if not wanted.exists():
            report(f"building {wanted.name}")
            _convert(folder, form, report)
    return wanted


def _build(folder: Path, image: store.Image, report: Report) -> None:
    """Build in a folder beside the final one and rename it, so that a disk is either complete or absent."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("upper", "work", "merged"):
        (partial / name).mkdir(parents=True)
    script = """
        set -eu
        mount --make-rprivate /
        mount -t overlay overlay -o "lowerdir=$BELOW,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/merged"
        sh "$RECIPE/machine/disk.sh" "$FOLDER/disk.raw" "$FOLDER/merged"
    """
    variables = {"BELOW": image.lowerdir, "FOLDER": str(partial), "RECIPE": str(RECIPE)}
    stream(["unshare", "--mount", "sh", "-c", script], report, env={**os.environ, **variables})
    for name in ("upper", "work", "merged"):
        shutil.rmtree(partial / name)
    raw = partial / "disk.raw"
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", "-W", "-m", "2"]
    stream([*convert, str(raw), str(partial / Format.QCOW2.file_name)], report)
    raw.unlink()
    partial.rename(folder)


def _convert(folder: Path, form: Format, report: Report) -> None:
    """Convert the disk to another format, in the same folder."""
    master, wanted = folder / Format.QCOW2.file_name, folder / form.file_name
    partial = wanted.with_name(f"{wanted.name}.partial")
    match form:
        case Format.BOX:
            vagrant_box.for_libvirt(master, partial)
        case Format.BOX_VIRTUALBOX:
            vagrant_box.for_virtualbox(master, partial, report)
        case _:
            stream(["qemu-img", "convert", "-O", form.value, str(master), str(partial)], report)
    partial.rename(wanted)


def _check_tools(form: Format) -> None:
    missing = [tool for tool in _TOOLS if not which(tool)]
    missing += [file for file in _FILES if not Path(file).exists()]
    if missing:
        raise HostError(
            f"building a disk needs {', '.join(missing)}, which this machine lacks",
            hint="`make setup STACK=vagrant` installs it on Debian and Ubuntu",
        )
    if os.geteuid() != 0:
        raise needs_root("building a disk", f"image build --format {form}")
