"""Building the node image, layer by layer; only the layers whose recipe changed."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from swarmer.errors import HostError
from swarmer.files import check_takes_overlays
from swarmer.image import recipe, store
from swarmer.image.recipe import RECIPE, Kind
from swarmer.shell import run
from swarmer.state import REPOSITORY

Report = Callable[[str], None]


def build(report: Report, *, kind: Kind = Kind.CONTAINER, fresh: bool = False) -> store.Image:
    """The node image of the recipe as it stands; built as far as it isn't there yet.

    Args:
        report: gets one line of progress at a time.
        kind: whether it brings a kernel of its own.
        fresh: build every layer again, to pick up newer packages.

    Raises:
        HostError: something this machine lacks, or a failed build step with its last lines.
        SwarmerError: nodes run on a layer that is built again.
    """
    if not fresh and (image := store.find(kind)):
        return image
    if os.geteuid() != 0:
        form = " --format qcow2" if kind is Kind.MACHINE else ""
        raise HostError(
            "building the node image needs root", hint=f"run `bin/as-root .venv/bin/swarmer image build{form}` once"
        )
    check_takes_overlays(store.store(), "SWARMER_CACHE")
    steps: dict[str, Callable[[Path, Report], dict[str, str]]] = {
        "base": _base,
        "consul": _consul,
        "machine": _machine,
        "node": _node,
    }
    with one_builder(report):
        below: list[Path] = []
        for layer in recipe.layers(kind):
            folder = store.layer_folder(layer)
            if fresh or not folder.exists():
                report(f"building the image layer {layer}")
                _build_layer(folder, below, steps[layer.name], report)
            below.append(folder / "root")
    image = store.find(kind)
    assert image
    report(f"image {image.id} is built")
    return image


def _build_layer(
    folder: Path, below: list[Path], step: Callable[[Path, Report], dict[str, str]], report: Report
) -> None:
    """Build beside the final place and rename, so that a layer is there whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    root = partial / "root"
    root.mkdir(parents=True)
    # Overlayfs can't be stacked by a step that only writes new files; those that change what is below mount it.
    (partial / "below").write_text(":".join(str(path) for path in reversed(below)))
    versions = step(partial, report)
    (partial / "below").unlink()
    shutil.rmtree(partial / "work", ignore_errors=True)
    (partial / "versions.json").write_text(json.dumps(versions, indent=1))
    if folder.exists():
        store.check_unused([folder.name])  # only now: a cluster may have begun while the step ran
    store.remove(folder)
    partial.rename(folder)


def _base(folder: Path, report: Report) -> dict[str, str]:
    root = folder / "root"
    stream(["sh", str(RECIPE / "base.sh"), str(root), recipe.SUITE, *recipe.apt_sources()], report)
    listing = run(["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"])
    return dict(line.split(" ", 1) for line in listing.stdout.splitlines())


def _consul(folder: Path, report: Report) -> dict[str, str]:
    binary = recipe.consul_binary()
    assert binary
    report(f"taking consul from {binary.path}")
    target = folder / "root/usr/bin/consul"
    target.parent.mkdir(parents=True)
    target.write_bytes(binary.content())
    target.chmod(0o755)
    first_line = run([target, "version"]).stdout.splitlines()[0]
    return {"consul": first_line.removeprefix("Consul v")}


def _machine(folder: Path, report: Report) -> dict[str, str]:
    """A kernel, a way to start it, and what goes with hardware; Debian packages on top of what is below."""
    _on_top(folder, 'sh "$RECIPE/machine/install.sh" "$MERGED"', {}, report)
    listing = run(["dpkg-query", f"--admindir={folder}/root/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"])
    return dict(line.split(" ", 1) for line in listing.stdout.splitlines())


def _node(folder: Path, report: Report) -> dict[str, str]:
    """Our own files on top of what is below."""
    packages = folder / "packages"
    stream(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
            *("--target", str(packages), "--requirement", str(RECIPE / "node-requirements.txt")),
        ],
        report,
    )
    for module in recipe.NODE_MODULES:
        source, target = REPOSITORY / module, packages / module
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    script = """
        tar -C "$PACKAGES" --owner=0 --group=0 --mode=u=rwX,go=rX -cf - . \\
            | tar -C "$MERGED/usr/lib/python3/dist-packages" -xf -
        sh "$RECIPE/customize.sh" "$MERGED"
    """
    _on_top(folder, script, {"PACKAGES": str(packages)}, report)
    shutil.rmtree(packages)
    return {}


def _on_top(folder: Path, script: str, variables: Mapping[str, str], report: Report) -> None:
    """Run a shell script that changes `$MERGED`: the layer over what is below.

    By overlayfs in a mount namespace that ends with the script.
    """
    work, merged = folder / "work", folder / "merged"
    work.mkdir()
    merged.mkdir()
    mount = """
        set -eu
        mount --make-rprivate /
        mount -t overlay overlay -o "lowerdir=$BELOW,upperdir=$UPPER,workdir=$WORK" "$MERGED"
    """
    own = {
        "BELOW": (folder / "below").read_text(),
        "UPPER": str(folder / "root"),
        "WORK": str(work),
        "MERGED": str(merged),
        "RECIPE": str(RECIPE),
    }
    stream(["unshare", "--mount", "sh", "-c", mount + script], report, env={**os.environ, **own, **variables})
    merged.rmdir()


def stream(command: list[str], report: Report, *, env: dict[str, str] | None = None) -> None:
    """Run a long command, reporting its lines as they come."""
    tail: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            start_new_session=True,
            close_fds=False,  # the lock of `one_builder` is held for as long as anything of this runs, also without us
        )
    except FileNotFoundError:
        raise HostError(
            f"the command {command[0]} is not installed", hint="`make setup` installs what swarmer needs"
        ) from None
    with process:
        assert process.stdout
        try:
            for line in process.stdout:
                if line := line.strip():
                    report(line)
                    tail = [*tail[-9:], line]
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise HostError(
            f"{command[0]} failed with {process.returncode} while building the image:\n  " + "\n  ".join(tail)
        )


def _end(process: subprocess.Popen[str]) -> None:
    """End a command with all that it has begun."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


@contextmanager
def one_builder(report: Report) -> Iterator[None]:
    """Two processes never build at once; the second one finds the work done."""
    store.store().mkdir(parents=True, exist_ok=True)
    with (store.store() / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process is building the image; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
