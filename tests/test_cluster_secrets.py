"""What commands do where a cluster's CA, credentials or keys are missing: they say so, and create nothing."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_specs import one_node

from swarmer import lifecycle, removal
from swarmer.boot import prepare
from swarmer.cli import cli
from swarmer.cluster import Cluster
from swarmer.errors import SwarmerError
from swarmer.host import trust as host_trust
from swarmer.host.trust import HostTrust
from swarmer.image import Image
from swarmer.ledger import Ledger, Ownership
from swarmer.progress import Silent
from swarmer.secrets.authority import Authority
from swarmer.secrets.credentials import Credentials, token_names
from swarmer.ssh import Ssh
from swarmer.state import ClusterHome

Swarmer = Callable[..., Result]


@pytest.fixture
def swarmer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Swarmer:
    """Runs a command in this process, with a `SWARMER_HOME` of its own."""
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(cli, words)


def kept(dc: str) -> ClusterHome:
    """A cluster with all its secrets, whose node is off."""
    spec = one_node(network="192.168.117", dc=dc)
    home = ClusterHome(spec.stack, dc)
    ledger = Ledger(home, spec=spec, image="0123456789ab", kept=True)
    ledger.save()
    ledger.record("path", str(home.credentials))
    ledger.record("path", str(home.ssh))
    Authority.create(home.folder, spec).write_client_files(home.folder)
    Credentials.create(home.credentials, token_names(spec))
    Ssh(home).prepare({s.name: s.ip for s in spec.servers})
    ledger.record("connections", str(home.control_sockets))
    return home


@pytest.fixture
def home(swarmer: Swarmer) -> ClusterHome:  # noqa: ARG001
    return kept("dev")


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def lose(home: ClusterHome, *names: str) -> dict[str, bytes]:
    """Remove files and folders; returns what is left."""
    for name in names:
        path = home.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return content(home.folder)


@pytest.mark.parametrize("lost", [("ca.pem",), ("ca-key.pem",), ("pki",), ("ca.pem", "ca-key.pem", "pki")])
def test_status_without_a_ca_says_so_and_creates_nothing(
    swarmer: Swarmer, home: ClusterHome, lost: tuple[str, ...]
) -> None:
    before = lose(home, *lost)
    told = swarmer("status")
    assert told.exit_code == 1
    assert "nspawn:dev (kept): the CA of nspawn:dev can't be used: " in told.stdout
    assert "is missing" in told.stdout
    assert "`swarmer down nspawn:dev --forget`, then `swarmer up`" in told.stdout
    seen = json.loads(swarmer("status", "--json").stdout)
    assert (seen["healthy"], seen["certificates_end"]) == (False, None)
    assert content(home.folder) == before


@pytest.mark.parametrize(
    "words",
    [["status"], ["registry", "password"], ["consul", "members"], ["logs", "core-1"], ["docker", "ps"]],
)
@pytest.mark.parametrize("lost", ["credentials.json", "ssh", "ca.pem"])
def test_no_command_creates_a_secret(swarmer: Swarmer, home: ClusterHome, words: list[str], lost: str) -> None:
    before = lose(home, lost)
    swarmer(*words)
    after = content(home.folder)
    after.pop(".lock", None)
    before.pop(".lock", None)
    assert after == before


def test_the_password_of_lost_credentials_is_an_error(swarmer: Swarmer, home: ClusterHome) -> None:
    lose(home, "credentials.json")
    told = swarmer("registry", "password")
    assert told.exit_code == 1
    assert "credentials.json are missing" in told.stderr


@pytest.mark.parametrize("lost", ["credentials.json", "ssh/id_ed25519", "ca.pem"])
def test_a_node_is_not_replaced_without_the_secrets_of_its_cluster(home: ClusterHome, lost: str) -> None:
    cluster = lifecycle.open_kept(home)
    before = lose(home, lost)
    with pytest.raises(SwarmerError, match="missing"):
        cluster.replace(cluster.nodes[0])
    assert content(home.folder) == before


def test_a_launch_prepares_all_secrets(swarmer: Swarmer, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    spec = one_node(network="192.168.117")
    home = ClusterHome(spec.stack, spec.dc)
    cluster = Cluster(Ledger(home, spec=spec, image=""), image=Image("none", (), {}))
    monkeypatch.setattr(cluster.stack, "prepare", lambda _: [])
    prepare(cluster, Silent())
    try:
        assert cluster.authority.cluster == "nspawn:dev"
        assert set(cluster.credentials.tokens) == set(token_names(spec))
        assert cluster.ssh.host_key("core-1") != cluster.ssh.client_key()
    finally:
        removal.down(home)
    assert not home.credentials.exists()
    assert not home.ssh.exists()


# down --forget


def made_down(home: ClusterHome) -> None:
    """A cluster that is gone, but for its CA."""
    removal.down(home)
    assert home.folder.exists()


def test_down_keeps_the_ca(swarmer: Swarmer, home: ClusterHome) -> None:
    ca = (home.folder / "ca.pem").read_bytes()
    assert swarmer("down").stdout == "removed nspawn:dev: core-1, 192.168.117.0/24\n"
    assert (home.folder / "ca.pem").read_bytes() == ca
    assert not home.credentials.exists()


@pytest.mark.parametrize("words", [[], ["nspawn:dev"]], ids=["the only one", "named"])
def test_forgetting_removes_the_whole_home(swarmer: Swarmer, home: ClusterHome, words: list[str]) -> None:
    told = swarmer("down", "--forget", *words)
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[0] == "removed nspawn:dev: core-1, 192.168.117.0/24"
    assert f"removed {home.folder}, with its CA" in told.stdout
    assert not home.folder.parent.exists()
    assert swarmer("down", "--forget", *words).stdout.endswith("; nothing to remove\n")


@pytest.mark.parametrize("words", [[], ["nspawn:dev"]], ids=["the only one", "named"])
@pytest.mark.parametrize("left", [("ca.pem",), ("ca-key.pem",), ("pki",), ("ca.pem", "ca-key.pem", "pki")])
def test_what_a_cluster_left_is_forgotten_also_when_it_is_gone(
    swarmer: Swarmer, home: ClusterHome, words: list[str], left: tuple[str, ...]
) -> None:
    made_down(home)
    lose(home, *{"ca.pem", "ca-key.pem", "pki"} - set(left))
    assert swarmer("down", *words).stdout.endswith("; nothing to remove\n")
    told = swarmer("down", "--forget", *words)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(f"removed {home.folder}, with its CA")
    assert not home.folder.parent.exists()


def test_of_several_clusters_the_forgotten_one_is_named(swarmer: Swarmer, home: ClusterHome) -> None:
    made_down(home)
    other = kept("other")
    told = swarmer("down", "--forget")
    assert told.exit_code == 1
    assert "name one of them: nspawn:dev, nspawn:other" in told.stderr
    assert swarmer("down", "--forget", "nspawn:dev").exit_code == 0
    assert not home.folder.exists()
    assert Authority.load(other.folder, one_node(network="192.168.117", dc="other"))


def test_a_cluster_that_a_process_runs_is_not_forgotten(swarmer: Swarmer, home: ClusterHome) -> None:
    before = content(home.folder)
    ownership = removal.own(home)
    try:
        told = swarmer("down", "--forget")
    finally:
        ownership.release()
    assert told.exit_code == 1
    assert "cluster nspawn:dev is in use by process" in told.stderr
    assert before.items() <= content(home.folder).items()


def test_a_cluster_that_is_unknown_is_not_made_by_forgetting_it(swarmer: Swarmer, tmp_path: Path) -> None:
    assert swarmer("down", "--forget", "nspawn:dev").stdout == "there is no cluster nspawn:dev; nothing to remove\n"
    with pytest.raises(SwarmerError, match="there is no cluster nspawn:dev"):
        removal.down(ClusterHome("nspawn", "dev"), forget=True)
    assert not (tmp_path / "home").exists()


def test_a_forgotten_cluster_gets_a_new_ca_for_another_network(swarmer: Swarmer, home: ClusterHome) -> None:
    old = (home.folder / "ca.pem").read_bytes()
    spec = one_node(network="192.168.118")
    with pytest.raises(SwarmerError, match="down nspawn:dev --forget"):
        Authority.create(home.folder, spec)
    swarmer("down", "--forget")
    assert Authority.create(home.folder, spec).root.pem != old


def test_status_names_the_command_that_renews_certificates(
    swarmer: Swarmer, home: ClusterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "expire" not in swarmer("status").stdout
    monkeypatch.setattr("swarmer.cli.clusters.RENEW_BEFORE", timedelta(days=366))
    told = swarmer("status").stdout
    end = Authority.load(home.folder, one_node(network="192.168.117")).end
    assert f"certificates expire on {end:%Y-%m-%d}" in told
    assert "`swarmer down nspawn:dev --forget`, then `swarmer up`" in told


def test_a_lock_of_a_forgotten_home_is_not_taken_for_its_lock(home: ClusterHome) -> None:
    """One who waited while the folder was removed takes the lock of the new folder."""
    waiting = Ownership(home)
    former = waiting._lock()
    assert former
    home.remove()
    home.make()
    other = Ownership(home)
    assert other.acquire()
    assert not waiting._is_current(former)
    assert not waiting.acquire()
    other.release()
    former.close()
    assert waiting.acquire()
    waiting.release()


# trust


@pytest.mark.parametrize("command", [("update-ca-certificates",), ()], ids=["a trust store", "none"])
def test_trust_warns_of_the_key_of_a_ca_in_the_trust_store(
    swarmer: Swarmer, home: ClusterHome, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(host_trust, "add", lambda *_: HostTrust(("/etc/ca.crt",), (), command))
    told = swarmer("trust").stdout
    scope = "dev.nspawn, localhost, swarmer-client, 192.168.117.0/24, 127.0.0.0/8"
    warning = f"note: anyone who can read {home.folder}/ca-key.pem can impersonate to this host: {scope};"
    assert (warning in told) == bool(command)
    assert ("no supported system trust store found" in told) != bool(command)
