"""The node image: build, show, prune."""

import shutil

import click

from swarmer import image as node_image
from swarmer.cli.common import json_option, print_json, print_table, size_text, spinner
from swarmer.errors import SwarmerError
from swarmer.image import store
from swarmer.progress import progress
from swarmer.stacks.vagrant import plan as vagrant_plan
from swarmer.terminal import Console

#: The packages that `show` lists without --all.
_IMPORTANT = (
    *("consul", "docker.io", "docker-registry", "cloud-init", "systemd", "skopeo", "dnsmasq-base", "openssh-server"),
    *("nftables", "python3", "containerd", "runc"),
)


@click.group()
def image() -> None:
    """Build or show the node image, or remove old ones."""


@image.command()
@click.option("--fresh", is_flag=True, help="Build every layer again, to pick up newer packages.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", *(form.value for form in node_image.Format)]),
    default="tree",
    show_default=True,
    help="A directory tree for nspawn, or a disk with its own kernel for virtual machines.",
)
def build(fresh: bool, form: str) -> None:
    """Build the image; layers that are up to date are reused.

    `swarmer up` does this when needed. A disk boots with BIOS and UEFI; its path is printed. A box is such a disk
    packaged for Vagrant: `box` for the libvirt provider, `box-virtualbox` for VirtualBox.

    \b
      swarmer image build
      swarmer image build --fresh
      swarmer image build --format qcow2
      vagrant box add --name swarmer $(swarmer image build --format box)
    """
    if fresh:
        store.check_unused([root.parent.name for found in _built() for root in found.roots])
    with progress(Console(stderr=True)) as shown:
        if form == "tree":
            click.echo(f"image {node_image.build(shown.say, fresh=fresh).id} is built")
            return
        click.echo(node_image.disk(shown.say, node_image.Format(form), fresh=fresh))
        if fresh:
            vagrant_plan.forget_boxes()


@image.command()
@click.option("--all", "every", is_flag=True, help="List every package, not just the important ones.")
@json_option
def show(every: bool, as_json: bool) -> None:
    """Show the layers and package versions of the image.

    \b
      swarmer image show
      swarmer image show --all | grep ssl

    With --json: id, layers (name, path, size_bytes), versions (package to version).
    """
    images = _built()
    if not images:
        raise SwarmerError("the image of the current recipe is not built yet", hint="`swarmer image build` builds it")
    found = images[0]
    with spinner("measuring the layers"):
        layers = [(root.parent.name, root, node_image.size(root)) for root in found.roots]
    names = sorted(found.versions) if every else [name for name in _IMPORTANT if name in found.versions]
    versions = {name: found.versions[name] for name in names}
    if as_json:
        rows = [{"name": name, "path": str(root), "size_bytes": size} for name, root, size in layers]
        print_json({"id": found.id, "layers": rows, "versions": versions})
        return
    click.echo(f"image {found.id}\n")
    print_table(("LAYER", "SIZE", "PATH"), [(name, size_text(size), str(root)) for name, root, size in layers])
    click.echo()
    print_table(("PACKAGE", "VERSION"), list(versions.items()))


@image.command()
def prune() -> None:
    """Remove unused layers, and Vagrant's copies of old boxes.

    Layers of the current recipe, and of any cluster under this SWARMER_HOME, are kept.

    \b
      swarmer image prune
    """
    with spinner("removing old layers"):
        removed = node_image.prune(lambda line: click.echo(line, err=True))
    for box in vagrant_plan.old_boxes():
        removed.append((f"Vagrant's copy of the box {box.name}", node_image.size(box)))
        shutil.rmtree(box)
    for name, size in removed:
        click.echo(f"removed {name}, {size_text(size)}")
    if not removed:
        click.echo("nothing to remove")


def _built() -> list[node_image.Image]:
    """The images of the current recipe that are built, the one without a kernel first."""
    return [found for kind in node_image.Kind if (found := node_image.find(kind))]
