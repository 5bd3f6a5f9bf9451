"""The input of the Vagrantfile: every property of the machines is decided here and passed on as JSON."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from swarmer.image import recipe, store
from swarmer.image.disk import Format
from swarmer.state import ClusterHome, cache_home, cluster_homes

BOX_NAME: Final = "swarmer-node"


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        memory: MiB.
        cpus: the number of processors; 1 for an emulated machine, whatever `servers.yml` says. QEMU translates the code
            of several processors in as many threads, in which Go's programs have crashed (SIGSEGV).
        box: the box to use instead of the plan's; None for the plan's.
        seed: the volume or file with its seed data.
        console: the file that its serial console is written to.
    """

    name: str
    ip: str
    mac: str
    memory: int
    cpus: int
    box: str | None
    seed: str
    console: str


@dataclass(frozen=True)
class Plan:
    """A cluster, for the Vagrantfile.

    Attributes:
        cluster: `STACK:DC`.
        file: the file that the plan is written to when the cluster is prepared.
        state: the folder for Vagrant's state of the machines.
        provider: Vagrant's name of the hypervisor.
        features: Vagrant's experimental features to enable.
        prefix: the prefix of machine names in the hypervisor.
        network: libvirt's name of the admin network.
        host: this host's address in it.
        slowness: the factor by which deadlines are multiplied; for swarmer itself.
        boot_timeout: seconds that Vagrant waits for a machine to accept SSH.
        ssh_key: the private key that logs in to all machines.
    """

    cluster: str
    file: str
    state: str
    provider: str
    features: str
    prefix: str
    network: str
    host: str
    netmask: str
    emulated: bool
    slowness: float
    boot_timeout: int
    ssh_key: str
    box: str
    box_version: str
    box_url: str
    machines: Sequence[Machine]

    def json(self) -> str:
        """The plan as JSON, for the Vagrantfile."""
        return json.dumps(asdict(self), indent=1) + "\n"


def prefix(home: ClusterHome) -> str:
    """The prefix of the names of a cluster's machines."""
    return f"swarmer-{home.tag}-"


def write_catalog(file: Path, provider: str, form: Format) -> None:
    """Write the box catalog for Vagrant: the version and path of the box of the current recipe."""
    url = f"file://{store.layer_folder(recipe.disk()) / form.file_name}"
    catalog = {
        "name": BOX_NAME,
        "versions": [{"version": box_version(), "providers": [{"name": provider, "url": url}]}],
    }
    file.write_text(json.dumps(catalog, indent=1) + "\n")


def forget_boxes() -> None:
    """Remove Vagrant's copies of swarmer's boxes: it doesn't notice that one was rebuilt from the same recipe."""
    for boxes in _copies():
        shutil.rmtree(boxes, ignore_errors=True)


def old_boxes() -> list[Path]:
    """Vagrant's copies of boxes that aren't of the current recipe; empty while any cluster exists that may need one."""
    if any(home.stack == "vagrant" for home in cluster_homes()):
        return []
    return [box for boxes in _copies() if boxes.exists() for box in boxes.glob("*.*") if box.name != box_version()]


def vagrant_home() -> Path:
    """The folder that Vagrant shares between clusters; the user's VAGRANT_HOME if set, since it may contain plugins."""
    given = os.environ.get("VAGRANT_HOME")
    return Path(given) if given else cache_home() / "vagrant"


def _copies() -> list[Path]:
    """The folders where Vagrant stores swarmer's boxes when swarmer or the user runs it."""
    return [home / "boxes" / BOX_NAME for home in (vagrant_home(), Path("~/.vagrant.d").expanduser())]


def box_version() -> str:
    """The digest of the current disk recipe, in the format of Vagrant's versions."""
    return f"1.0.{int(recipe.disk().digest, 16)}"


def box_volume() -> str:
    """vagrant-libvirt's name for its copy of the box in the pool."""
    return f"{BOX_NAME}_vagrant_box_image_{box_version()}_box.img"
