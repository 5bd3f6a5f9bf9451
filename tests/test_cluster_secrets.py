"""What commands do where a cluster's CA, credentials or keys are missing: they say so, and create nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_specs import one_node

from swarmer import lifecycle, removal
from swarmer.boot import prepare
from swarmer.cli import cli
from swarmer.cluster import Cluster
from swarmer.errors import SwarmerError
from swarmer.image import Image
from swarmer.ledger import Ledger
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
    Ssh(home).prepare(spec)
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
