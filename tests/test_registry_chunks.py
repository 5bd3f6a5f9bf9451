"""Chunks of an upload come in order, also after an answer that its client didn't get."""

import base64
import hmac
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.registry import uploads
from swarmer.node.registry.errors import RegistryError

SECRET = "secret"
COUNTS = st.integers(0, 10**15)


def address(offset: int, secret: str = SECRET) -> str:
    """As docker-registry makes it."""
    state = {"Name": "app", "UUID": "1-2", "Offset": offset, "StartedAt": "2026-01-01T00:00:00.123456789Z"}
    text = json.dumps(state).encode()
    token = base64.urlsafe_b64encode(hmac.digest(secret.encode(), text, "sha256") + text).decode()
    return f"/v2/app/blobs/uploads/1-2?_state={token}&digest=sha256%3Aabc"


def state_of(uri: str) -> str:
    (state,) = parse_qs(urlsplit(uri).query)["_state"]
    return state


@given(COUNTS, COUNTS)
def test_an_earlier_address_is_brought_up_to_date(before: int, arrived: int) -> None:
    renewed = uploads.renewed(address(before), SECRET, arrived)
    assert uploads.offset_of(state_of(renewed), SECRET) == arrived
    assert urlsplit(renewed).path == "/v2/app/blobs/uploads/1-2"
    assert parse_qs(urlsplit(renewed).query)["digest"] == ["sha256:abc"]


@pytest.mark.parametrize("uri", [address(1, "another"), "/v2/app/blobs/uploads/1-2", "/v2/a/blobs/uploads/1?_state=ä"])
def test_an_address_that_docker_registry_did_not_make_stays_as_it_is(uri: str) -> None:
    assert uploads.renewed(uri, SECRET, 5) == uri


@given(st.text())
def test_no_state_makes_it_stumble(state: str) -> None:
    assert uploads.offset_of(state, SECRET) is None


@given(COUNTS, st.integers(1, 10**9), COUNTS)
def test_a_chunk_is_taken_if_it_is_the_next_one(start: int, length: int, arrived: int) -> None:
    for text in (f"{start}-{start + length - 1}", f"bytes {start}-{start + length - 1}/*"):
        if start == arrived:
            uploads.check_order(text, length, known=0, arrived=arrived)
            continue
        with pytest.raises(RegistryError) as refused:
            uploads.check_order(text, length, known=0, arrived=arrived)
        assert (refused.value.status, refused.value.code) == (416, "BLOB_UPLOAD_INVALID")


def test_a_stream_is_taken_if_its_client_knows_what_has_arrived() -> None:
    uploads.check_order("", 0, known=10, arrived=10)
    with pytest.raises(RegistryError) as refused:
        uploads.check_order("", 0, known=0, arrived=10)
    assert refused.value.status == 416


@pytest.mark.parametrize(
    ("text", "length", "code"),
    [
        ("0-9", 11, "SIZE_INVALID"),
        ("9-0", 10, "SIZE_INVALID"),
        ("0-", 0, "BLOB_UPLOAD_INVALID"),
        ("x", 0, "BLOB_UPLOAD_INVALID"),
    ],
)
def test_a_range_that_cannot_be_true_is_refused(text: str, length: int, code: str) -> None:
    with pytest.raises(RegistryError) as refused:
        uploads.check_order(text, length, known=0, arrived=0)
    assert (refused.value.status, refused.value.code) == (400, code)
