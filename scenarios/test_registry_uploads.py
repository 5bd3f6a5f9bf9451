"""Uploads in chunks come in order and continue after a lost answer; digests, large manifests, layers kept elsewhere."""

import json
from collections.abc import Callable

import pytest

from fixtures.registry import error_of
from swarmer.clients.registry_client import MANIFEST, Image, RegistryClient, digest_of
from swarmer.cluster_node import Node
from swarmer.commands import registry_gc
from swarmer.node.registry.disk import relative_path

At = Callable[[Node], RegistryClient]

CONTENT = bytes(range(30))


def chunk(client: RegistryClient, location: str, start: int, end: int) -> tuple[int, str]:
    """Send these bytes of the content; the status, and where to send the next ones."""
    headers = {"Content-Range": f"{start}-{end - 1}", "Content-Type": "application/octet-stream"}
    answer = client.ask("PATCH", location, data=CONTENT[start:end], headers=headers)
    return answer.status_code, answer.headers.get("Location", "")


def begun(client: RegistryClient) -> str:
    return client.ask("POST", "/v2/chunks/blobs/uploads/").headers["Location"]


def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(registry_nodes: list[Node], registry_at: At) -> None:
    for node in registry_nodes:
        client = registry_at(node)
        start = begun(client)
        assert chunk(client, start, 5, 10)[0] == 416
        status, after_ten = chunk(client, start, 0, 10)
        assert status == 202
        for wrong in ((20, 30), (5, 15), (0, 10)):
            assert chunk(client, after_ten, *wrong)[0] == 416
        # Also in the last request.
        headers = {"Content-Range": "20-29", "Content-Type": "application/octet-stream"}
        end = {"params": {"digest": digest_of(CONTENT)}, "headers": headers}
        refused = client.ask("PUT", after_ten, data=CONTENT[20:], **end)
        assert error_of(refused) == (416, ["BLOB_UPLOAD_INVALID"])
        status, after_twenty = chunk(client, after_ten, 10, 20)
        assert status == 202
        assert client.ask("PUT", after_twenty, data=CONTENT[20:], **end).status_code == 201
        assert client.get(f"/v2/chunks/blobs/{digest_of(CONTENT)}").content == CONTENT


def test_an_upload_goes_on_after_an_answer_that_was_lost(registry_nodes: list[Node], registry_at: At) -> None:
    for node in registry_nodes:
        client = registry_at(node)
        start = begun(client)
        assert chunk(client, start, 0, 10)[0] == 202
        # A client that didn't get this answer knows only the first address, and asks there.
        asked = client.get(start)
        assert (asked.status_code, asked.headers["Range"]) == (204, "0-9")
        assert chunk(client, start, 0, 10)[0] == 416
        # Without a range, it can't be known whether these bytes are the next ones.
        assert client.ask("PATCH", start, data=CONTENT[:10]).status_code == 416
        status, location = chunk(client, asked.headers["Location"], 10, 30)
        assert status == 202
        assert client.ask("PUT", location, params={"digest": digest_of(CONTENT)}).status_code == 201


@pytest.mark.parametrize("digest", [f"sha512:{'0' * 128}", "sha256:12", "md5:12", ""])
def test_a_digest_that_the_registry_cannot_check_is_refused_before_the_content(
    client: RegistryClient, digest: str
) -> None:
    ended = client.ask("PUT", begun(client), params={"digest": digest}, data=CONTENT)
    assert error_of(ended) == (400, ["DIGEST_INVALID"])


def test_no_invalid_manifest_is_called_an_error_of_the_registry(client: RegistryClient) -> None:
    config = b"{}"
    client.push_blob("invalid", digest_of(config), config)
    descriptor = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(config), "size": 2}
    valid = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": []}
    client.put_manifest("invalid", "valid", json.dumps(valid).encode())
    layer = {**descriptor, "mediaType": "application/vnd.oci.image.layer.v1.tar"}
    for change in (
        {"schemaVersion": 1},
        {"mediaType": "text/plain"},
        {"layers": [{**layer, "urls": ["ftp://example.org/layer"]}]},
        {"layers": [{**layer, "urls": ["https://example.org/layer#part"]}]},
        {"layers": [{**layer, "size": "many"}]},
        {"subject": {**descriptor, "digest": "sha256:12"}},
        {"annotations": {"a": 1}},
        {"manifests": [descriptor]},
    ):
        content = json.dumps(valid | change).encode()
        answer = client.ask("PUT", "/v2/invalid/manifests/1", data=content, headers={"Content-Type": MANIFEST})
        assert error_of(answer) == (400, ["MANIFEST_INVALID"]), change


def test_a_layer_that_is_kept_elsewhere_is_not_needed_and_one_that_was_uploaded_is_kept(
    registry_nodes: list[Node], registry_at: At, client: RegistryClient
) -> None:
    base = Image.random()
    client.push("foreign", "base", base)

    def pushed(tag: str, layer: bytes) -> None:
        descriptor = {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": digest_of(layer),
            "size": len(layer),
            "urls": ["https://mirror.example.org/base.tgz"],
        }
        document = json.loads(base.manifest)
        document["layers"].append(descriptor)
        client.put_manifest("foreign", tag, json.dumps(document).encode())

    pushed("elsewhere", b"nowhere in this cluster")
    uploaded = b"uploaded as well"
    # The manifest is there before the layer is; pushed again, it needs it.
    pushed("uploaded", uploaded)
    client.push_blob("foreign", digest_of(uploaded), uploaded)
    pushed("uploaded", uploaded)
    file = f"/var/lib/docker-registry/docker/registry/v2/blobs/{relative_path(digest_of(uploaded))}"
    for node in registry_nodes:
        node.wait_until_succeeds(f"test -s {file}")
    assert not [each.problem for each in registry_gc.collect(registry_nodes, grace=0) if each.problem]
    for node in registry_nodes:
        node.succeed(f"test -s {file}")
        assert registry_at(node).get(f"/v2/foreign/blobs/{digest_of(uploaded)}").content == uploaded
        assert registry_at(node).get("/v2/foreign/manifests/elsewhere").status_code == 200
