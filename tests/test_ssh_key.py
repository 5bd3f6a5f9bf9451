"""The SSH keys of a cluster: made once, and only where they may be."""

import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from swarmer.errors import SwarmerError
from swarmer.files import write_private
from swarmer.secrets import ssh_key
from swarmer.secrets.ssh_key import KeyPair
from swarmer.ssh import Ssh
from swarmer.state import ClusterHome


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "id_ed25519"


def test_created_once_it_stays_the_same(file: Path) -> None:
    created = KeyPair.create(file)
    assert KeyPair.create(file) == KeyPair.load(file) == created
    assert file.with_name("id_ed25519.pub").read_text() == f"{created.public}\n"


def test_ssh_keygen_derives_the_same_public_key(file: Path) -> None:
    created = KeyPair.create(file)
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == created.public.split()


def test_loading_creates_nothing(file: Path) -> None:
    with pytest.raises(SwarmerError, match="id_ed25519 is missing") as caught:
        KeyPair.load(file)
    assert "`swarmer down`" in caught.value.hint
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize("written", [0, 1])
def test_interrupted_at_any_write_the_key_stays(file: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    left = [written]

    def die(path: Path, content: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_private(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ssh_key, "write_private", die)
        KeyPair.create(file)
    before = file.read_text() if file.exists() else None
    after = KeyPair.create(file)
    assert before in (None, after.private)
    assert file.with_name("id_ed25519.pub").read_text() == f"{after.public}\n"


@pytest.mark.parametrize("content", ["", "garbage", "-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_damaged_key_is_refused_and_left_as_it_is(file: Path, content: str) -> None:
    file.write_text(content)
    for method in (KeyPair.create, KeyPair.load):
        with pytest.raises(SwarmerError, match="id_ed25519 can't be read"):
            method(file)
    assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


NODES = {"core-1": IPv4Address("10.7.0.11")}


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(ClusterHome, "control_sockets", tmp_path / "sockets")
    home = ClusterHome("nspawn", "dev")
    home.make()
    return Ssh(home)


def test_attaching_to_a_cluster_makes_no_key(ssh: Ssh) -> None:
    with pytest.raises(SwarmerError, match="is missing"):
        ssh.write_config(NODES)
    assert not list(ssh.home.folder.iterdir())
    ssh.prepare(NODES)
    keys = ssh.client_key(), ssh.host_key("core-1")
    ssh.write_config(NODES)
    assert (ssh.client_key(), ssh.host_key("core-1")) == keys


def test_a_new_node_has_another_host_key_and_the_same_client_key(ssh: Ssh) -> None:
    ssh.prepare(NODES)
    login, before = ssh.client_key(), ssh.host_key("core-1")
    ssh.renew_host_key("core-1")
    ssh.write_config(NODES)
    assert ssh.host_key("core-1") != before
    assert ssh.client_key() == login
    assert (ssh.home.ssh / "known_hosts").read_text() == f"core-1,10.7.0.11 {ssh.host_key('core-1').public}\n"
