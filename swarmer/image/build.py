"""Building the node image, layer by layer; only layers whose recipe changed are built."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from swarmer.errors import HostError, needs_root
from swarmer.files import check_takes_overlays, take_lock
from swarmer.image import recipe, store
from swarmer.image.recipe import RECIPE, Kind
from swarmer.shell import lines, run
from swarmer.state import REPOSITORY

Report = Callable[[str], None]

#: Seconds that a build step may print nothing.
_SILENCE = 900.0

#: Seconds for which a process waits for another one that builds the image.
_BUILD_TIMEOUT = 3600.0


def build(report: Report, *, kind: Kind = Kind.CONTAINER, fresh: bool = False) -> store.Image:
    """The node image of the current recipe; missing layers are built.

    Args:
        report: receives one line of progress at a time.
        kind: whether the image has a kernel of its own.
        fresh: build every layer again, to pick up newer packages.

    Raises:
        HostError: something is missing on this machine, or a build step failed; the message has its last lines.
        SwarmerError: nodes run on a layer that would be replaced.
    """
    if not fresh and (image := store.find(kind)):
        return image
    if os.geteuid() != 0:
        raise needs_root("building the node image", f"image build{' --format qcow2' if kind is Kind.MACHINE else ''}")
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
    """Build in a folder beside the final one and rename it, so that a layer is either complete or absent."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    root = partial / "root"
    root.mkdir(parents=True)
    # For the steps that change files of the layers below, and therefore mount an overlay over them.
    (partial / "below").write_text(":".join(str(path) for path in reversed(below)))
    versions = step(partial, report)
    (partial / "below").unlink()
    shutil.rmtree(partial / "work", ignore_errors=True)
    (partial / "versions.json").write_text(json.dumps(versions, indent=1))
    if folder.exists():
        store.check_unused([folder.name])  # only now: a cluster may have been started while the step ran
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
    """A kernel, its boot files and hardware support: Debian packages on top of the layers below."""
    _on_top(folder, 'sh "$RECIPE/machine/install.sh" "$MERGED"', {}, report)
    listing = run(["dpkg-query", f"--admindir={folder}/root/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"])
    return dict(line.split(" ", 1) for line in listing.stdout.splitlines())


def _node(folder: Path, report: Report) -> dict[str, str]:
    """Our own files on top of the layers below."""
    packages = folder / "packages"
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
    """Run a shell script that changes `$MERGED`, this layer stacked over those below.

    They are stacked by overlayfs, in a mount namespace that ends with the script.
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
    """Run a long command, and report its output line by line.

    Raises:
        HostError: the program isn't installed, or failed; the message has its last ten lines.
    """
    tail: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            close_fds=False,  # the lock of `one_builder` is held as long as any process of this runs, even without us
        )
    except FileNotFoundError:
        raise HostError(
            f"the command {command[0]} is not installed", hint="`make setup` installs what swarmer needs"
        ) from None
    with process:
        assert process.stdout
        try:
            for line in lines(process.stdout, silence=_SILENCE):
                if line := line.strip():
                    report(line)
                    tail = [*tail[-9:], line]
        except TimeoutError:
            _end(process)
            raise HostError(
                f"{command[0]} printed nothing for {_SILENCE:.0f} s while building the image, and was ended; "
                "before:\n  " + "\n  ".join(tail),
                hint="does the package mirror of this host answer?",
            ) from None
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise HostError(
            f"{command[0]} failed with {process.returncode} while building the image:\n  " + "\n  ".join(tail)
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a command and all its child processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


@contextmanager
def one_builder(report: Report) -> Iterator[None]:
    """Hold the lock that lets only one process build at a time; the others wait for it."""
    store.store().mkdir(parents=True, exist_ok=True)
    with (store.store() / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        waiting = partial(report, "another process is building the image; waiting for it")
        take_lock(lock.fileno(), "another process that builds the image", timeout=_BUILD_TIMEOUT, waiting=waiting)
        yield
