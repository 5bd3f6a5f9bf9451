"""The node image: what it must not contain, when it is rebuilt, and using another consul."""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Harness, servers_yml, wait_for

from swarmer import image
from swarmer.errors import HostError, SwarmerError
from swarmer.image import Image, recipe, store
from swarmer.image.build import Report, stream
from swarmer.ledger import Ledger
from swarmer.spec import file as spec_file
from swarmer.state import ClusterHome

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="reading and building the image needs root")


@pytest.fixture(scope="module")
def node_image() -> Image:
    found = image.find()
    assert found, "`make setup` builds the image"
    return found


def files(node_image: Image, *folders: str) -> dict[str, Path]:
    """Path on a node to the file itself, of the files in some folders."""
    return {
        f"/{path.relative_to(root)}": path
        for root in node_image.roots
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@needs_root
def test_no_secret_is_in_it(node_image: Image) -> None:
    found = files(node_image, "etc", "root", "home", "var/lib", "usr/local", "srv")
    assert "/etc/passwd" in found
    for name, path in found.items():
        content = path.read_bytes()
        assert b"PRIVATE KEY" not in content, name
        assert b"AUTHORIZED" not in content, name
    assert not [name for name in found if re.search(r"ssh_host_|authorized_keys|/etc/swarmer/|/var/lib/cloud/", name)]
    passwords = [line.split(":")[1] for line in found["/etc/shadow"].read_text().splitlines()]
    assert set(passwords) <= {"*", "!", "!*"}


@needs_root
def test_the_machine_id_is_empty_so_that_each_node_creates_its_own(node_image: Image) -> None:
    assert files(node_image, "etc")["/etc/machine-id"].read_bytes() == b""


@needs_root
def test_a_cache_on_an_overlayfs_is_refused(tmp_path: Path) -> None:
    script = """
        mount -t tmpfs tmpfs "$1"
        mkdir "$1/lower" "$1/upper" "$1/work" "$1/cache"
        mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/cache"
        SWARMER_CACHE="$1/cache/of-images" exec "$2" -m swarmer image build
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", tmp_path, sys.executable], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/cache/of-images/images is on an overlayfs")
    assert "set SWARMER_CACHE to a folder on another file system" in done.stderr


def test_a_layer_is_identified_by_the_content_of_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "REPOSITORY", tmp_path)
    monkeypatch.setattr(recipe, "RECIPE", tmp_path / "image")
    (tmp_path / "image/rootfs/etc").mkdir(parents=True)
    for name in ("base.sh", "packages.txt", "customize.sh", "masked.txt", "generators.txt", "rootfs/etc/motd"):
        (tmp_path / "image" / name).write_text(name)

    first_base, first_node = recipe.layers()
    (tmp_path / "image/rootfs/etc/motd").write_text("hello")
    second_base, second_node = recipe.layers()
    assert second_base == first_base
    assert second_node != first_node
    (tmp_path / "image/packages.txt").write_text("consul")
    third_base, third_node = recipe.layers()
    assert third_base != second_base
    assert third_node != second_node


# -- a consul other than Debian's ---------------------------------------------------------------------------------


def as_binary(consul: bytes, folder: Path) -> Path:
    file = folder / "consul"
    file.write_bytes(consul)
    return file


def as_zip(consul: bytes, folder: Path) -> Path:
    file = folder / "consul_1.8.7_linux.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("consul", consul)
    return file


def choose(monkeypatch: pytest.MonkeyPatch, file: Path, sha256: str | None = None) -> None:
    monkeypatch.setenv("SWARMER_CONSUL", str(file))
    given = hashlib.sha256(file.read_bytes()).hexdigest() if sha256 is None else sha256
    monkeypatch.setenv("SWARMER_CONSUL_SHA256", given)


@needs_root
@pytest.mark.parametrize("packed", [as_binary, as_zip])
def test_nodes_run_the_chosen_consul(
    packed: Callable[[bytes, Path], Path],
    node_image: Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The packaged consul with a marker appended, which changes its checksum."""
    marked = files(node_image, "usr/bin")["/usr/bin/consul"].read_bytes() + b"chosen"
    choose(monkeypatch, packed(marked, tmp_path))
    (tmp_path / "cache/images").mkdir(parents=True)
    base = node_image.roots[0].parent
    (tmp_path / "cache/images" / base.name).symlink_to(base)  # the minute of its building is not what is tested
    monkeypatch.setenv("SWARMER_CACHE", str(tmp_path / "cache"))

    harness = Harness(tmp_path)
    harness.describe(servers_yml("10.97.1"))
    built = harness.swarmer("image", "build")
    assert built.returncode == 0, built.stdout
    chosen = image.find()
    assert chosen
    assert chosen.id != node_image.id
    assert chosen.consul_version == node_image.consul_version
    try:
        up = harness.swarmer("up")
        assert up.returncode == 0, up.stdout
        assert harness.swarmer("exec", "node-1", "tail -c 6 /proc/$(pidof consul)/exe").stdout.endswith("chosen")
    finally:
        harness.swarmer("down")


@pytest.mark.parametrize(
    ("content", "sha256", "sentence"),
    [
        (b"\x7fELF", "0" * 64, "the SHA-256 of"),
        (b"\x7fELF", "", "SWARMER_CONSUL_SHA256 is not set"),
        (b"PK no zip", None, "neither an executable nor a zip"),
    ],
)
def test_a_consul_with_a_wrong_checksum_or_content_is_refused(
    content: bytes, sha256: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, as_binary(content, tmp_path), sha256)
    binary = recipe.consul_binary()
    assert binary
    with pytest.raises(HostError, match=sentence) as refused:
        binary.content()
    assert refused.value.hint


def test_a_build_step_that_prints_nothing_for_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["swarmer.image.build"], "_SILENCE", 1.0)
    stream(["sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.4; done"], lambda _: None)
    with pytest.raises(HostError, match=r"printed nothing for 1 s while building the image"):
        stream(["sh", "-c", "echo begin; sleep 600 & wait"], lambda _: None)


def test_interrupting_a_build_step_ends_all_its_processes() -> None:
    begun: list[str] = []

    def report(line: str) -> None:
        begun.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(["sh", "-c", "sleep 600 & echo $!; wait"], report)
    stat = Path("/proc", begun[0], "stat")
    wait_for("the end of the processes of the step", lambda: not stat.exists() or " Z " in stat.read_text(), timeout=10)


def test_removing_a_layer_completes_an_interrupted_removal(tmp_path: Path) -> None:
    for name in ("layer", "layer.old.partial"):
        (tmp_path / name / "root").mkdir(parents=True)
        (tmp_path / name / "root/file").touch()
    store.remove(tmp_path / "layer")
    assert not list(tmp_path.iterdir())
    store.remove(tmp_path / "layer")


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Starts a cluster on some layers, as far as its ledger; the store and all home folders belong to the test."""
    (tmp_path / "servers.yml").write_text(servers_yml("10.97.1"))
    for name in ("SWARMER_HOME", "SWARMER_CACHE", "VAGRANT_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("SWARMER_CONSUL", raising=False)
    store.store().mkdir(parents=True)
    spec = spec_file.load(tmp_path / "servers.yml")
    return lambda layers: Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image="", layers=layers).save()


def test_prune_keeps_a_layer_taken_while_another_process_built(begin: Callable[[list[str]], None]) -> None:
    for name in ("node-old", "node-taken"):
        (store.store() / name).mkdir()
    with (store.store() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "swarmer", "image", "prune"]
        prune = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert prune.stderr
        assert "waiting for it" in prune.stderr.readline()
        begin(["node-taken"])
    said, _ = prune.communicate(timeout=60)
    assert said.startswith("removed node-old,")
    assert "node-taken" not in said
    assert {path.name for path in store.store().iterdir()} == {"lock", "node-taken"}


def test_prune_keeps_a_layer_taken_while_others_are_removed(
    begin: Callable[[list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("node-1", "node-2"):
        (store.store() / name).mkdir()
    remove = store.remove

    def and_one_begins(folder: Path) -> None:
        remove(folder)
        begin(["node-2"])

    monkeypatch.setattr(store, "remove", and_one_begins)
    assert [name for name, _ in image.prune(print)] == ["node-1"]
    assert {path.name for path in store.store().iterdir()} == {"lock", "node-2"}


@needs_root
def test_a_fresh_build_does_not_replace_a_layer_taken_meanwhile(
    begin: Callable[[list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = recipe.layers()
    for layer in layers:
        (store.layer_folder(layer) / "root/before").mkdir(parents=True)

    def step(folder: Path, report: Report) -> dict[str, str]:  # noqa: ARG001
        begin([str(layer) for layer in layers])
        return {}

    for name in ("_base", "_node"):
        monkeypatch.setattr(sys.modules["swarmer.image.build"], name, step)
    with pytest.raises(SwarmerError, match="nodes run on this image: nspawn:harness"):
        image.build(print, fresh=True)
    assert all((store.layer_folder(layer) / "root/before").exists() for layer in layers)


def test_a_missing_consul_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMER_CONSUL", "/nowhere/consul")
    binary = recipe.consul_binary()
    assert binary
    with pytest.raises(HostError, match="can't be read: No such file"):
        binary.content()
