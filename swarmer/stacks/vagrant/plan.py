"""What the Vagrantfile reads: all that it says of machines is decided here, once, and handed over as JSON."""

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
        box: another one than the plan's.
        seed: the volume or the file with its seed data.
        console: the file that its serial console goes to.
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
        file: where this is written once the cluster is prepared.
        state: the folder for what Vagrant knows of the machines.
        provider: which hypervisor, as Vagrant calls it.
        features: those of Vagrant that must be asked for.
        prefix: what the hypervisor's names of machines begin with.
        network: libvirt's name of the admin network.
        host: this host's address in it.
        slowness: the factor by which deadlines are longer than usual; for swarmer itself.
        boot_timeout: seconds that Vagrant waits for a machine to let it in.
        ssh_key: the private key that opens all machines.
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
        """As the Vagrantfile reads it."""
        return json.dumps(asdict(self), indent=1) + "\n"


def prefix(home: ClusterHome) -> str:
    """What the names of a cluster's machines begin with."""
    return f"swarmer-{home.tag}-"


def write_catalog(file: Path, provider: str, form: Format) -> None:
    """Tell Vagrant the version of today's box, and where it is."""
    url = f"file://{store.layer_folder(recipe.disk()) / form.file_name}"
    catalog = {
        "name": BOX_NAME,
        "versions": [{"version": box_version(), "providers": [{"name": provider, "url": url}]}],
    }
    file.write_text(json.dumps(catalog, indent=1) + "\n")


def forget_boxes() -> None:
    """Remove Vagrant's copies of our boxes: it takes one that was built afresh from the same recipe for the same."""
    for boxes in _copies():
        shutil.rmtree(boxes, ignore_errors=True)


def old_boxes() -> list[Path]:
    """Vagrant's copies of our boxes that aren't of today's recipe; none while there is a cluster that may need one."""
    if any(home.stack == "vagrant" for home in cluster_homes()):
        return []
    return [box for boxes in _copies() if boxes.exists() for box in boxes.glob("*.*") if box.name != box_version()]


def vagrant_home() -> Path:
    """Where Vagrant keeps what it shares between clusters; a person's own choice may hold plugins that it needs."""
    given = os.environ.get("VAGRANT_HOME")
    return Path(given) if given else cache_home() / "vagrant"


def _copies() -> list[Path]:
    """Where Vagrant keeps our boxes when we call it, and when a person does."""
    return [home / "boxes" / BOX_NAME for home in (vagrant_home(), Path("~/.vagrant.d").expanduser())]


def box_version() -> str:
    """The digest of today's disk as a version that Vagrant understands."""
    return f"1.0.{int(recipe.disk().digest, 16)}"


def box_volume() -> str:
    """What vagrant-libvirt calls its copy of the box in the pool."""
    return f"{BOX_NAME}_vagrant_box_image_{box_version()}_box.img"
