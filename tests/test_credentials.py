import base64
import fcntl
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.errors import SwarmerError
from swarmer.files import locked_folder, write_private
from swarmer.secrets.credentials import Credentials

PEM_KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIOlp\n-----END EC PRIVATE KEY-----"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "credentials.json"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secrets_of(credentials: Credentials) -> list[str]:
    return [credentials.gossip_key, credentials.management_token, *credentials.tokens.values()]


def test_each_secret_is_well_formed_and_its_own(file: Path) -> None:
    credentials = Credentials.create(file, ["core-1", "core-2"])
    assert len(base64.b64decode(credentials.gossip_key, validate=True)) == 32
    assert set(credentials.tokens) == {"core-1", "core-2"}
    tokens = [credentials.management_token, *credentials.tokens.values()]
    assert [str(uuid.UUID(token)) for token in tokens] == tokens
    assert len(set(tokens)) == 3


def test_opened_again_it_is_the_same(file: Path) -> None:
    first = Credentials.create(file, ["core-1"])
    content = file.read_bytes()
    assert Credentials.create(file, ["core-1"]) == Credentials.load(file) == first
    assert file.read_bytes() == content


def test_a_new_node_gets_a_token_and_the_others_keep_theirs(file: Path) -> None:
    first = Credentials.create(file, ["core-1"])
    second = Credentials.create(file, ["core-2"])
    assert second.tokens["core-1"] == first.tokens["core-1"]
    assert second.management_token == first.management_token
    assert Credentials.create(file, []).tokens == second.tokens


@pytest.mark.usefixtures("open_umask")
def test_only_the_owner_can_read_it(file: Path) -> None:
    Credentials.create(file, ["core-1"])
    assert mode(file) == 0o600
    assert mode(file.parent) == 0o700


@pytest.mark.usefixtures("open_umask")
def test_missing_parents_are_private_too(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "swarmer" / "nspawn" / "dev"):
        pass
    assert mode(tmp_path / "swarmer") == mode(tmp_path / "swarmer" / "nspawn") == 0o700


def is_locked(folder: Path) -> bool:
    with (folder / ".lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_locked_folder_keeps_others_out_until_it_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked_folder(tmp_path):
        assert is_locked(tmp_path)
        raise KeyboardInterrupt
    assert not is_locked(tmp_path)


def test_credentials_are_written_under_the_lock(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []

    def write(path: Path, content: bytes) -> None:
        locked.append(is_locked(path.parent))
        write_private(path, content)

    monkeypatch.setattr("swarmer.secrets.credentials.write_private", write)
    Credentials.create(file, ["core-1"])
    assert locked == [True, True]


def test_a_temporary_file_left_open_to_all_is_closed_before_it_is_used(tmp_path: Path) -> None:
    left_over = tmp_path / ".secret.new"
    left_over.touch()
    left_over.chmod(0o666)
    write_private(tmp_path / "secret", b"s")
    assert mode(tmp_path / "secret") == 0o600
    assert not left_over.exists()


def test_the_new_file_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / ".secret.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        write_private(tmp_path / "secret", b"s")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_a_file_gives_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(SwarmerError, match="cannot use folder") as caught:
        Credentials.create(tmp_path / "home" / "credentials.json", [])
    assert "SWARMER_HOME" in caught.value.hint


def good_document() -> dict[str, object]:
    return {
        "gossip_key": base64.b64encode(bytes(32)).decode(),
        "management_token": str(uuid.UUID(int=1)),
        "tokens": {"core-1": str(uuid.UUID(int=2))},
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        json.dumps(good_document() | {"gossip_key": "c2hvcnQ="}).encode(),
        json.dumps(good_document() | {"gossip_key": 7}).encode(),
        json.dumps(good_document() | {"management_token": "let-me-in"}).encode(),
        json.dumps(good_document() | {"tokens": ["core-1"]}).encode(),
        json.dumps(good_document() | {"tokens": {"core-1": None}}).encode(),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    for method in (Credentials.load, partial(Credentials.create, token_names=["core-1"])):
        with pytest.raises(SwarmerError, match=r"credentials\.json can't be read") as caught:
            method(file)
        assert caught.value.hint
        assert caught.value.__cause__ is None
        assert "let-me-in" not in str(caught.value)
        assert file.read_bytes() == content


@pytest.mark.parametrize("method", [Credentials.load, partial(Credentials.ensure_tokens, token_names=["core-1"])])
def test_only_create_creates_them(file: Path, method: Callable[[Path], Credentials]) -> None:
    with pytest.raises(SwarmerError, match=r"credentials\.json are missing") as caught:
        method(file)
    assert "`swarmer down`" in caught.value.hint
    assert not file.parent.exists()


def test_a_cluster_that_has_grown_gets_the_tokens_it_lacks(file: Path) -> None:
    first = Credentials.create(file, ["core-1"])
    grown = Credentials.ensure_tokens(file, ["core-1", "core-2"])
    assert Credentials.load(file) == grown
    assert grown.tokens.items() > first.tokens.items()
    assert (grown.gossip_key, grown.management_token) == (first.gossip_key, first.management_token)


def test_its_text_form_shows_no_secret(file: Path) -> None:
    credentials = Credentials.create(file, ["core-1", "core-2"])
    for text in (repr(credentials), str(credentials), f"{credentials}"):
        assert "core-1" in text
        assert not [secret for secret in secrets_of(credentials) if secret in text]


uuids = st.uuids().map(str)
credentials_strategy = st.builds(
    Credentials,
    gossip_key=st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode()),
    management_token=uuids,
    tokens=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), uuids, max_size=4),
)


@given(credentials_strategy, st.data())
def test_masking_takes_every_secret_out_of_any_text(credentials: Credentials, data: st.DataObject) -> None:
    secrets = secrets_of(credentials)
    spellings = [*secrets, *(secret.upper() for secret in secrets), *(quote(s, safe="") for s in secrets)]
    pieces = data.draw(st.lists(st.one_of(st.sampled_from(spellings), st.text(max_size=9)), max_size=12))
    masked = credentials.mask("".join(pieces))
    assert not [spelling for spelling in spellings if spelling in masked]


def test_masking_leaves_everything_else(file: Path) -> None:
    credentials = Credentials.create(file, ["core-1"])
    text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\nX-Consul-Token: {}, done"
    assert credentials.mask(text.format(credentials.management_token)) == text.format("***")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda key: key, id="as it is"),
        pytest.param(lambda key: key.replace("\n", "\n      "), id="indented in YAML"),
        pytest.param(json.dumps, id="escaped in JSON"),
        pytest.param(lambda key: key.replace("EC ", ""), id="PKCS#8"),
        pytest.param(lambda key: key.replace("EC ", "OPENSSH "), id="OpenSSH"),
        pytest.param(lambda key: key[:-40], id="cut off"),
    ],
)
def test_masking_takes_private_keys_out(file: Path, shape) -> None:  # type: ignore[no-untyped-def]
    masked = Credentials.create(file, []).mask(f"before {shape(PEM_KEY)}")
    assert masked.startswith("before ")
    assert "***" in masked
    assert "MHcC" not in masked


def test_masking_takes_join_tokens_of_the_swarm_out(file: Path) -> None:
    token = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx"
    assert Credentials.create(file, []).mask(f"join --token {token} 10.0.0.1") == "join --token *** 10.0.0.1"


def test_between_two_keys_the_text_stays(file: Path) -> None:
    assert Credentials.create(file, []).mask(f"{PEM_KEY} and {PEM_KEY}.") == "*** and ***."
