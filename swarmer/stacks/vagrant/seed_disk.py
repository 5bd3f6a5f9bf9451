"""Seed data on a disk, for machines that have no other way to get it."""

import tempfile
from pathlib import Path

from swarmer.files import write_private
from swarmer.seed.cloudinit import SeedData
from swarmer.shell import run


def write_seed_disk(disk: Path, seed: SeedData | None) -> None:
    """A disk image, labelled so that cloud-init's NoCloud source finds it; an empty one without seed data."""
    # Beside the disk, so that who removes that removes the secrets as well. Mode 0700.
    with tempfile.TemporaryDirectory(prefix="seed-", dir=disk.parent) as folder:
        for name, content in seed.files().items() if seed else ():
            write_private(Path(folder, name), content)
        label = "cidata" if seed else "empty"
        run(["genisoimage", "-quiet", "-volid", label, "-joliet", "-rock", "-output", disk, folder])
