"""Seed data on a disk, for machines that can't receive it in another way."""

import tempfile
from pathlib import Path

from swarmer.files import write_private
from swarmer.seed.cloudinit import SeedData
from swarmer.shell import run


def write_seed_disk(disk: Path, seed: SeedData | None) -> None:
    """Write a disk image, labelled so that cloud-init's NoCloud source finds it; an empty one without seed data."""
    # In the folder of the disk, so that the secrets are removed together with it. Its mode is 0700.
    with tempfile.TemporaryDirectory(prefix="seed-", dir=disk.parent) as folder:
        for name, content in seed.files().items() if seed else ():
            write_private(Path(folder, name), content)
        label = "cidata" if seed else "empty"
        run(["genisoimage", "-quiet", "-volid", label, "-joliet", "-rock", "-output", disk, folder])
