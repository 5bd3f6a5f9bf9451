"""Trusting a cluster on this host: what is written, told and undone."""

import json
import stat
from pathlib import Path

import pytest
from small_specs import one_node

from swarmer.errors import HostError, SwarmerError
from swarmer.host import trust as host_trust
from swarmer.secrets.authority import Authority
from swarmer.secrets.client_files import Plane
from swarmer.state import ClusterHome

SPEC = one_node()
HOST = "registry.service.dev.nspawn:5000"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterHome:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    return ClusterHome("nspawn", "dev")


@pytest.fixture
def authority(home: ClusterHome) -> Authority:
    authority = Authority.create(home.folder, SPEC)
    authority.write_client_files(home.folder)
    return authority


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's tree, without any docker."""
    (tmp_path / "root/etc").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def store(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Debian's store of CAs; its command only writes down how it was called."""
    folder = root / "usr/local/share/ca-certificates"
    folder.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/update-ca-certificates"
    command.write_text(f'#!/bin/sh\necho "called $*" >>{tmp_path}/calls\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return folder


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_docker_and_the_system_get_what_they_look_for(
    home: ClusterHome, authority: Authority, root: Path, store: Path, tmp_path: Path
) -> None:
    made = host_trust.add(home, authority, HOST, root=root)
    docker = root / f"etc/docker/certs.d/{HOST}"
    assert sorted(path.name for path in docker.iterdir()) == ["ca.crt", "client.cert", "client.key"]
    assert (docker / "client.cert").read_bytes() == (home.folder / "registry-client.pem").read_bytes()
    assert (docker / "ca.crt").read_bytes().endswith(authority.root.pem)
    (ca,) = store.iterdir()
    assert ca.read_bytes() == authority.root.pem
    assert ca.suffix == ".crt"
    assert stat.S_IMODE((docker / "client.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(ca.stat().st_mode) == 0o644
    assert set(made.files) == {str(path) for path in (*docker.iterdir(), ca)}
    assert (tmp_path / "calls").read_text() == "called \n"


def test_undone_nothing_of_it_is_left(
    home: ClusterHome, authority: Authority, root: Path, store: Path, tmp_path: Path
) -> None:
    (store / "other.crt").write_text("someone else's")
    before = sorted(root.rglob("*"))
    made = host_trust.add(home, authority, HOST, root=root)
    assert list(host_trust.trusted()) == [home]
    assert host_trust.remove(home) == made
    assert sorted(root.rglob("*")) == before
    assert (tmp_path / "calls").read_text() == "called \ncalled --fresh\n"
    assert host_trust.remove(home) is None
    assert list(host_trust.trusted()) == []


def test_what_others_put_beside_it_stays(home: ClusterHome, authority: Authority, root: Path) -> None:
    other = root / "etc/docker/certs.d/example.org"
    other.mkdir(parents=True)
    (other / "ca.crt").write_text("example")
    host_trust.add(home, authority, HOST, root=root)
    host_trust.remove(home)
    assert files(root) == ["etc/docker/certs.d/example.org/ca.crt"]


def test_what_a_cluster_of_the_same_name_in_another_home_wrote_stays(
    home: ClusterHome, authority: Authority, root: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_trust.add(home, authority, HOST, root=root)
    (own,) = store.iterdir()
    with monkeypatch.context() as other:
        other.setenv("SWARMER_HOME", str(tmp_path / "home-of-another"))
        their_authority = Authority.create(home.folder, SPEC)
        their_authority.write_client_files(home.folder)
        theirs = host_trust.add(home, their_authority, HOST, root=root)
    undone = host_trust.remove(home)
    assert set(files(root)) == {str(Path(file).relative_to(root)) for file in theirs.files}
    assert undone
    assert undone.files == (str(own),)
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home-of-another"))
    assert host_trust.remove(home) == theirs
    assert files(root) == []


def test_what_an_older_version_wrote_goes_whatever_it_holds(
    home: ClusterHome, authority: Authority, root: Path
) -> None:
    made = host_trust.add(home, authority, HOST, root=root)
    record = home.folder / "trust.json"
    data = json.loads(record.read_text())
    del data["digests"]
    record.write_text(json.dumps(data))
    Path(made.files[0]).write_text("another content")
    host_trust.remove(home)
    assert files(root) == []


def test_a_system_without_a_store_that_is_known_gets_only_dockers_files(
    home: ClusterHome, authority: Authority, root: Path
) -> None:
    made = host_trust.add(home, authority, HOST, root=root)
    assert made.command == ()
    assert all("certs.d" in file for file in made.files)


@pytest.mark.usefixtures("store")
def test_a_command_that_fails_leaves_nothing(
    home: ClusterHome, authority: Authority, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin/update-ca-certificates").write_text("#!/bin/sh\ncase $1 in --fresh) exit 0 ;; esac\nexit 1\n")
    with pytest.raises(HostError, match="failed with 1"):
        host_trust.add(home, authority, HOST, root=root)
    assert files(root) == []
    assert host_trust.remove(home) is None


@pytest.mark.usefixtures("store")
def test_what_could_not_be_undone_is_undone_by_the_next_try(
    home: ClusterHome, authority: Authority, root: Path, tmp_path: Path
) -> None:
    host_trust.add(home, authority, HOST, root=root)
    command = tmp_path / "bin/update-ca-certificates"
    works = command.read_text()
    command.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(HostError, match="failed with 1"):
        host_trust.remove(home)
    command.write_text(works)
    (tmp_path / "calls").unlink()
    assert host_trust.remove(home)
    assert (tmp_path / "calls").read_text() == "called --fresh\n"
    assert host_trust.remove(home) is None


@pytest.mark.parametrize("written", [0, 1, 3])
def test_interrupted_anywhere_it_is_undone(home: ClusterHome, authority: Authority, root: Path, written: int) -> None:
    made = host_trust.add(home, authority, HOST, root=root)
    for file in made.files[written:]:
        Path(file).unlink()
    assert json.loads((home.folder / "trust.json").read_text())["files"] == list(made.files)
    host_trust.remove(home)
    assert files(root) == []


def test_again_it_begins_anew(home: ClusterHome, authority: Authority, root: Path) -> None:
    first = host_trust.add(home, authority, HOST, root=root)
    assert host_trust.add(home, authority, HOST, root=root) == first
    host_trust.remove(home)
    assert files(root) == []


def test_a_cluster_without_its_client_certificate_is_not_trusted(
    home: ClusterHome, authority: Authority, root: Path
) -> None:
    home.client(Plane.REGISTRY).key.unlink()
    with pytest.raises(SwarmerError, match=r"client certificate .* missing: .*/registry-client-key.pem") as caught:
        host_trust.add(home, authority, HOST, root=root)
    assert "swarmer down nspawn:dev" in caught.value.hint
    assert files(root) == []
