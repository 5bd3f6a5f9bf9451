"""What requests ask of the registry, and what manifests consist of."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.registry import manifests
from swarmer.node.registry.api_call import Kind, is_digest, is_name, parse
from swarmer.node.registry.errors import RegistryError

PART = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True)
NAMES = st.lists(PART, min_size=1, max_size=4).map("/".join).filter(lambda name: len(name) <= 255)
TAGS = st.from_regex(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII), fullmatch=True)
DIGESTS = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def error_of(method: str, uri: str) -> tuple[int, str]:
    with pytest.raises(RegistryError) as raised:
        parse(method, uri)
    return raised.value.status, raised.value.code


@given(NAMES, TAGS, DIGESTS)
def test_every_name_tag_and_digest_of_the_spec_is_parsed(name: str, tag: str, digest: str) -> None:
    for reference in (tag, digest):
        call = parse("PUT", f"/v2/{name}/manifests/{reference}")
        assert (call.kind, call.repository, call.reference) == (Kind.MANIFEST, name, reference)
        assert call.by_digest == (reference == digest)
    call = parse("GET", f"/v2/{name}/blobs/{digest}")
    assert (call.kind, call.repository, call.reference, call.writes) == (Kind.BLOB, name, digest, False)
    call = parse("POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from={name}")
    assert (call.kind, call.repository, call.query["mount"], call.writes) == (Kind.UPLOADS, name, digest, True)
    assert parse("GET", f"/v2/{name}/tags/list").repository == name
    assert parse("GET", f"/peer/v2/{name}/blobs/{digest}").kind is Kind.PEER_BLOB


@given(st.text(max_size=60))
def test_whatever_is_asked_is_parsed_or_refused_in_the_words_of_the_spec(text: str) -> None:
    for uri in (text, f"/v2/{text}", f"/v2/{text}/manifests/1", f"/v2/a/manifests/{text}", f"/v2/a/blobs/{text}"):
        try:
            call = parse("GET", uri)
        except RegistryError as refused:
            error = json.loads(refused.body)["errors"][0]
            assert refused.status in (400, 404, 405)
            assert error["code"] == refused.code
            assert error["message"]
        except ValueError as error:
            # What no client can send: nginx refuses it.
            assert "netloc" in str(error) or "IPv6" in str(error) or "port" in str(error).lower()
        else:
            assert not call.repository or is_name(call.repository)


@pytest.mark.parametrize(
    "name",
    ["", "A", "a/", "/a", "a//b", "a..b", "a___b", "-a", "a-", "a/../b", "a b", "ä", "a:b", "a@b", "n" * 256, "a\n"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    assert not is_name(name)
    assert error_of("GET", f"/v2/{quote(name)}/manifests/1")[0] in (400, 404)


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, A + "\n"]
)
def test_what_is_no_digest_is_refused(digest: str) -> None:
    assert not is_digest(digest)


@pytest.mark.parametrize(
    ("method", "uri", "error"),
    [
        ("GET", "/v2/A/manifests/1", (400, "NAME_INVALID")),
        ("GET", "/v2/a/manifests/-", (400, "MANIFEST_INVALID")),
        ("GET", "/v2/a/manifests/sha256:a", (400, "DIGEST_INVALID")),
        ("GET", "/v2/a/blobs/x", (400, "DIGEST_INVALID")),
        ("GET", f"/v2/a/blobs/sha512:{'a' * 128}", (404, "BLOB_UNKNOWN")),
        ("HEAD", f"/v2/a/manifests/sha512:{'a' * 128}", (404, "MANIFEST_UNKNOWN")),
        ("PUT", f"/v2/a/manifests/sha512:{'a' * 128}", (400, "DIGEST_INVALID")),
        ("GET", "/v2/a/referrers/x", (400, "DIGEST_INVALID")),
        ("PUT", f"/v2/a/referrers/{A}", (405, "UNSUPPORTED")),
        ("POST", "/v2/a/blobs/uploads/?digest=md5:a", (400, "DIGEST_INVALID")),
        ("POST", f"/v2/a/blobs/uploads/?digest=sha512:{'a' * 128}", (400, "DIGEST_INVALID")),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", (400, "DIGEST_INVALID")),
        ("PUT", "/v2/a/blobs/uploads/1-2?digest=", (400, "DIGEST_INVALID")),
        ("POST", "/token", (405, "UNSUPPORTED")),
        ("DELETE", f"/v2/a/blobs/{A}", (405, "UNSUPPORTED")),
        ("PATCH", "/v2/a/manifests/1", (405, "UNSUPPORTED")),
        ("GET", "/v2/a", (404, "UNSUPPORTED")),
        ("GET", "/", (404, "UNSUPPORTED")),
        ("GET", "/peer/v2/_catalog", (404, "UNSUPPORTED")),
    ],
)
def test_errors_of_requests(method: str, uri: str, error: tuple[int, str]) -> None:
    assert error_of(method, uri) == error


@pytest.mark.parametrize(
    ("uri", "name", "kind"),
    [
        (f"/v2/blobs/uploads/blobs/{A}", "blobs/uploads", Kind.BLOB),
        ("/v2/manifests/manifests/manifests", "manifests", Kind.MANIFEST),
        ("/v2/tags/list/tags/list", "tags/list", Kind.TAGS),
        ("/v2/a/blobs/uploads/1-2?_state=x/y", "a", Kind.UPLOAD),
        (f"/v2/referrers/referrers/{A}", "referrers", Kind.REFERRERS),
        (f"/v2/a/referrers/sha512:{'a' * 128}?artifactType=x/y", "a", Kind.REFERRERS),
    ],
)
def test_names_may_hold_the_words_of_the_spec(uri: str, name: str, kind: Kind) -> None:
    call = parse("GET", uri)
    assert (call.repository, call.kind) == (name, kind)


@given(
    st.integers(400, 599),
    st.text(),
    st.text(),
    st.dictionaries(st.sampled_from(["Allow", "Retry-After", "WWW-Authenticate"]), st.text()),
)
def test_an_error_is_the_same_after_its_way_through_headers(
    status: int, code: str, message: str, headers: dict[str, str]
) -> None:
    sent = RegistryError(status, code, message, headers).for_nginx
    assert sent["X-Error-Body"].isascii()
    assert sent["X-Error-Body"].isprintable()
    assert json.loads(sent["X-Error-Body"]) == {"errors": [{"code": code, "message": message}]}
    assert int(sent["X-Error-Status"]) == status
    assert {name.removeprefix("X-Error-"): value for name, value in sent.items()}.items() >= headers.items()


# -- manifests -------------------------------------------------------------------------------------------------


def parts(document: Any, type_: str = IMAGE) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = parsed(document, type_)
    return found.blobs, found.manifests


def parsed(document: Any, type_: str = IMAGE) -> manifests.Document:
    if isinstance(document, dict):
        document = {"schemaVersion": 2, **document}
    return manifests.parse("1", type_, json.dumps(document).encode())


def test_the_parts_of_an_image_and_of_an_index() -> None:
    image = {"config": {"digest": A}, "layers": [{"digest": B}, {"digest": C}, {"digest": B}]}
    assert parts(image) == ((A, B, C), ())
    assert parts({"manifests": [{"digest": A}, {"digest": B}]}, INDEX) == ((), (A, B))


def test_the_type_may_be_in_the_manifest() -> None:
    assert parts({"mediaType": INDEX, "manifests": []}, "") == ((), ())


def layer(digest: str, *urls: object) -> dict[str, Any]:
    return {"digest": digest, "urls": list(urls)}


def test_a_layer_with_addresses_of_its_own_need_not_be_here() -> None:
    layers = [layer(B, "https://example.org/layer"), layer(C, "http://[2001:db8::1]:8080/a%20b?c=d"), layer(A)]
    found = parsed({"config": {"digest": A}, "layers": layers})
    assert (found.blobs, found.foreign) == ((A,), (B, C))


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/", "https://", "file:///etc/passwd", "https://a/#b", "https://a b/", "https://a/%zz", "", 1],
)
def test_an_address_that_no_client_can_use_is_refused(url: object) -> None:
    """docker-registry would answer that it has an error."""
    with pytest.raises(RegistryError) as refused:
        parsed({"config": {"digest": A}, "layers": [layer(B, url)]})
    assert (refused.value.status, refused.value.code) == (400, "MANIFEST_INVALID")


def test_what_a_referrer_says_of_itself() -> None:
    image = {"config": {"digest": A, "mediaType": "text/config"}, "layers": [], "subject": {"digest": B}}
    assert (parsed(image).subject, parsed(image).artifact_type) == (B, "text/config")
    own = parsed({**image, "artifactType": "text/own", "annotations": {"a": "b"}})
    assert (own.artifact_type, own.annotations) == ("text/own", {"a": "b"})
    assert parsed({"manifests": [], "subject": {"digest": B}}, INDEX).artifact_type == ""
    # The OCI's own types alone have a subject, by any algorithm that the OCI registers.
    assert parsed(image, "application/vnd.docker.distribution.manifest.v2+json").subject == ""
    assert parsed({**image, "subject": {"digest": "sha512:" + "a" * 128}}).subject.startswith("sha512:")


@pytest.mark.parametrize(
    ("document", "type_"),
    [
        ({}, IMAGE),
        ([], IMAGE),
        (None, IMAGE),
        ({"config": {"digest": "x"}, "layers": []}, IMAGE),
        ({"schemaVersion": 1, "config": {"digest": A}, "layers": []}, IMAGE),
        ({"config": {"digest": A}, "layers": [{"digest": "x", "urls": ["https://a/"]}]}, IMAGE),
        ({"config": {"digest": A}, "layers": [], "subject": {}}, IMAGE),
        ({"config": {"digest": A}, "layers": [], "subject": {"digest": "sha256:12"}}, IMAGE),
        ({"config": {"digest": A}, "layers": [], "annotations": [1]}, IMAGE),
        (
            {
                "config": {"digest": A},
                "layers": [{"digest": B, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}],
            },
            "application/vnd.docker.distribution.manifest.v2+json",
        ),
        ({"config": {"digest": A}, "layers": [1]}, IMAGE),
        ({"config": {"digest": A}, "layers": []}, "text/plain"),
        ({"fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+json"),
        ({"manifests": {"digest": A}}, INDEX),
    ],
)
def test_what_is_no_manifest_is_refused(document: Any, type_: str) -> None:
    with pytest.raises(RegistryError) as refused:
        parts(document, type_)
    assert (refused.value.status, refused.value.code) == (400, "MANIFEST_INVALID")


@given(st.binary(max_size=200))
def test_no_content_makes_it_stumble(content: bytes) -> None:
    with pytest.raises(RegistryError):
        manifests.parse("1", IMAGE, content)
