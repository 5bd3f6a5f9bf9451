"""The registry refuses invalid requests with the errors of the distribution spec; tags, indexes and lists."""

from collections.abc import Callable

import pytest

from fixtures.registry import begun_upload, error_of
from swarmer.clients import registry_client
from swarmer.clients.registry_client import Image, RegistryClient, RegistryError, codes, digest_of
from swarmer.cluster_node import Node

At = Callable[[Node], RegistryClient]

NO_DIGEST = "sha256:" + "0" * 64


# -- errors of the spec ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/v2/Upper/manifests/1", (400, ["NAME_INVALID"])),
        ("POST", "/v2/-dash/blobs/uploads/", (400, ["NAME_INVALID"])),
        ("GET", f"/v2/{'n' * 256}/tags/list", (400, ["NAME_INVALID"])),
        ("GET", "/v2/none/tags/list", (404, ["NAME_UNKNOWN"])),
        ("GET", "/v2/none/manifests/1", (404, ["MANIFEST_UNKNOWN"])),
        ("GET", f"/v2/none/manifests/{NO_DIGEST}", (404, ["MANIFEST_UNKNOWN"])),
        ("GET", "/v2/none/manifests/sha256:12", (400, ["DIGEST_INVALID"])),
        ("PUT", "/v2/none/manifests/.no-tag", (400, ["MANIFEST_INVALID"])),
        ("GET", f"/v2/none/blobs/{NO_DIGEST}", (404, ["BLOB_UNKNOWN"])),
        ("GET", "/v2/none/blobs/sha256:12", (400, ["DIGEST_INVALID"])),
        ("GET", f"/v2/none/blobs/sha512:{'0' * 128}", (404, ["BLOB_UNKNOWN"])),
        ("GET", f"/v2/none/manifests/sha512:{'0' * 128}", (404, ["MANIFEST_UNKNOWN"])),
        ("POST", "/v2/none/blobs/uploads/?digest-algorithm=sha512", (400, ["DIGEST_INVALID"])),
        ("DELETE", "/v2/none/manifests/1", (404, ["MANIFEST_UNKNOWN"])),
        ("DELETE", f"/v2/none/blobs/{NO_DIGEST}", (405, ["UNSUPPORTED"])),
        ("POST", "/v2/_catalog", (405, ["UNSUPPORTED"])),
        ("GET", "/v2/none/else", (404, ["UNSUPPORTED"])),
        ("GET", "/v1/_ping", (404, ["UNSUPPORTED"])),
        ("GET", "/v2/_catalog?n=few", (400, ["PAGINATION_NUMBER_INVALID"])),
    ],
)
def test_what_is_wrong_or_not_there_has_its_error_on_every_node(
    registry_nodes: list[Node], registry_at: At, method: str, path: str, error: tuple[int, list[str]]
) -> None:
    for node in registry_nodes:
        assert error_of(registry_at(node).ask(method, path)) == error, node


def test_a_wrong_digest_is_refused_and_nothing_is_kept(client: RegistryClient) -> None:
    content = b"not what it says"
    begun = client.ask("POST", "/v2/errors/blobs/uploads/")
    sent = client.ask("PATCH", begun.headers["Location"], data=content)
    ended = client.ask("PUT", sent.headers["Location"], params={"digest": NO_DIGEST})
    assert error_of(ended) == (400, ["DIGEST_INVALID"])
    assert client.ask("HEAD", f"/v2/errors/blobs/{NO_DIGEST}").status_code == 404
    assert client.ask("HEAD", f"/v2/errors/blobs/{digest_of(content)}").status_code == 404


def test_an_upload_that_was_cut_off_is_not_taken_for_whole(client: RegistryClient) -> None:
    content = b"x" * 100_000
    location = client.ask("POST", "/v2/errors/blobs/uploads/").headers["Location"]
    with begun_upload(client, location, content[:40_000], length=len(content)):
        pass
    ended = client.ask("PUT", location, params={"digest": digest_of(content)})
    assert ended.status_code in (400, 404, 416)
    assert set(codes(ended)) <= {"DIGEST_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "SIZE_INVALID"}
    assert client.ask("HEAD", f"/v2/errors/blobs/{digest_of(content)}").status_code == 404
    client.push_blob("errors", digest_of(content), content)
    assert client.get(f"/v2/errors/blobs/{digest_of(content)}").content == content


def test_an_unknown_upload_and_an_unknown_blob_are_told(client: RegistryClient) -> None:
    state = client.ask("POST", "/v2/errors/blobs/uploads/").headers["Location"]
    assert client.ask("DELETE", state).status_code == 204
    assert error_of(client.ask("PATCH", state, data=b"late")) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    image = Image.random()
    with pytest.raises(RegistryError) as refused:
        client.put_manifest("errors", "1", image.manifest)
    assert refused.value.codes[0] == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"no json", (400, ["MANIFEST_INVALID"])),
        (b"{}", (400, ["MANIFEST_INVALID"])),
        (b" " * (4 << 20), (400, ["MANIFEST_INVALID"])),
        (b" " * ((4 << 20) + 1), (413, ["SIZE_INVALID"])),
    ],
    ids=["not JSON", "an empty object", "4 MiB", "one byte more"],
)
def test_what_is_no_manifest_is_refused(client: RegistryClient, content: bytes, error: tuple[int, list[str]]) -> None:
    headers = {"Content-Type": registry_client.MANIFEST}
    answer = client.ask("PUT", "/v2/errors/manifests/1", data=content, headers=headers)
    assert error_of(answer) == error


def test_a_manifest_under_another_digest_is_refused(client: RegistryClient) -> None:
    image = Image.random()
    client.push("errors", "right", image)
    with pytest.raises(RegistryError) as refused:
        client.put_manifest("errors", NO_DIGEST, image.manifest)
    assert (refused.value.status, refused.value.codes) == (400, ["DIGEST_INVALID"])


# -- tags, indexes, deletion -----------------------------------------------------------------------------------


def test_tags_move_and_go_on_all_nodes_at_once(registry_nodes: list[Node], registry_at: At) -> None:
    first, second = Image.random(), Image.random()
    for number, node in enumerate(registry_nodes * 2):
        image = (first, second)[number % 2]
        registry_at(node).push("moving", "latest", image)
        for other in registry_nodes:
            assert registry_at(other).digest("moving", "latest") == image.digest
    assert registry_at(registry_nodes[-1]).ask("DELETE", "/v2/moving/manifests/latest").status_code == 202
    for node in registry_nodes:
        assert registry_at(node).get("/v2/moving/manifests/latest").status_code == 404
        assert registry_at(node).pull("moving", first.digest) == first
    for image in (first, second):
        assert registry_at(registry_nodes[0]).ask("DELETE", f"/v2/moving/manifests/{image.digest}").status_code == 202
    for node in registry_nodes:
        assert error_of(registry_at(node).get("/v2/moving/tags/list")) == (404, ["NAME_UNKNOWN"])


def test_an_index_is_taken_when_all_that_it_lists_is_there(registry_nodes: list[Node], registry_at: At) -> None:
    images = [Image.random(), Image.random()]
    index = registry_client.index_of(images)
    client = registry_at(registry_nodes[0])
    client.push("indexed", images[0].digest, images[0])
    with pytest.raises(RegistryError) as refused:
        client.put_manifest("indexed", "all", index, registry_client.INDEX)
    assert refused.value.codes[0] == "MANIFEST_BLOB_UNKNOWN"
    client.push("indexed", images[1].digest, images[1])
    client.put_manifest("indexed", "all", index, registry_client.INDEX)
    for node in registry_nodes:
        assert registry_at(node).get("/v2/indexed/manifests/all").content == index
        for image in images:
            assert registry_at(node).pull("indexed", image.digest) == image


def test_long_lists_come_in_pages(client: RegistryClient) -> None:
    image = Image.random()
    tags = [f"t{number:02}" for number in range(7)]
    for tag in tags:
        client.push("paged", tag, image)
    found: list[str] = []
    path = "/v2/paged/tags/list?n=3"
    while path:
        answer = client.get(path)
        page = answer.json()["tags"]
        assert len(page) <= 3
        found += page
        path = answer.links.get("next", {}).get("url", "")
    assert found == tags


@pytest.mark.parametrize(("path", "key"), [("/v2/paged/tags/list", "tags"), ("/v2/_catalog", "repositories")])
def test_a_list_of_nothing_has_no_next_page(client: RegistryClient, path: str, key: str) -> None:
    client.push("paged", "t00", Image.random())
    for query in ("n=0", "n=0&last=a", "n=1&last=zzzz"):
        answer = client.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()[key]) == (200, [])
        assert "Link" not in answer.headers
    assert error_of(client.get(f"{path}?n=-1")) == (400, ["PAGINATION_NUMBER_INVALID"])
    assert client.get(f"{path}?n=1000000000000").json()[key]
