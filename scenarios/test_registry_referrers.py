"""What refers to an image, such as its signature, is listed on every node; images without a tag go on request."""

import json
from collections.abc import Callable

import pytest

from fixtures.registry import error_of
from swarmer.clients import registry_client
from swarmer.clients.registry_client import INDEX, MANIFEST, Image, RegistryClient, digest_of
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.commands import registry_gc

At = Callable[[Node], RegistryClient]

EMPTY = b"{}"
SIGNATURE, SBOM = "application/vnd.example.signature", "application/vnd.example.sbom"


def referrer(subject: bytes, artifact_type: str, **more: object) -> bytes:
    """A manifest that refers to another one."""
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(EMPTY), "size": len(EMPTY)}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": empty,
            "layers": [empty],
            "subject": {"mediaType": MANIFEST, "digest": digest_of(subject), "size": len(subject)},
            **more,
        }
    ).encode()


def attach(client: RegistryClient, repository: str, manifest: bytes) -> str:
    """Push a referrer by its digest; that digest."""
    client.push_blob(repository, digest_of(EMPTY), EMPTY)
    digest = digest_of(manifest)
    path = f"/v2/{repository}/manifests/{digest}"
    answer = client.ask("PUT", path, data=manifest, headers={"Content-Type": MANIFEST})
    assert answer.status_code == 201
    assert answer.headers["OCI-Subject"] == json.loads(manifest)["subject"]["digest"]
    return digest


def listed(client: RegistryClient, repository: str, subject: str, **query: str) -> dict[str, dict[str, object]]:
    """The referrers of a subject, by digest."""
    answer = client.get(f"/v2/{repository}/referrers/{subject}", params=query)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, INDEX)
    assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if query else None)
    return {entry["digest"]: entry for entry in answer.json()["manifests"]}


def test_referrers_are_listed_on_every_node(
    registry_nodes: list[Node], registry_at: At, client: RegistryClient
) -> None:
    image = Image.random()
    signature = referrer(image.manifest, SIGNATURE, annotations={"by": "me"})
    sbom = referrer(image.manifest, SBOM)
    # In either order.
    signature_digest = attach(client, "signed", signature)
    client.push("signed", "1", image)
    sbom_digest = attach(registry_at(registry_nodes[-1]), "signed", sbom)
    for node in registry_nodes:
        found = listed(registry_at(node), "signed", image.digest)
        assert set(found) == {signature_digest, sbom_digest}
        assert found[signature_digest] == {
            "mediaType": MANIFEST,
            "digest": signature_digest,
            "size": len(signature),
            "artifactType": SIGNATURE,
            "annotations": {"by": "me"},
        }
        assert set(listed(registry_at(node), "signed", image.digest, artifactType=SBOM)) == {sbom_digest}
        assert listed(registry_at(node), "signed", sbom_digest) == {}
        assert listed(registry_at(node), "never-pushed", image.digest) == {}
    assert client.ask("DELETE", f"/v2/signed/manifests/{sbom_digest}").status_code == 202
    for node in registry_nodes:
        assert set(listed(registry_at(node), "signed", image.digest)) == {signature_digest}


def test_an_index_and_images_of_docker_have_referrers(client: RegistryClient) -> None:
    image = Image.random()
    client.push("signed-index", image.digest, image)
    index = registry_client.index_of([image])
    client.put_manifest("signed-index", "1", index, INDEX)
    assert set(listed(client, "signed-index", digest_of(index))) == set()
    digest = attach(client, "signed-index", referrer(index, SIGNATURE))
    assert set(listed(client, "signed-index", digest_of(index))) == {digest}
    docker = image.manifest.replace(MANIFEST.encode(), b"application/vnd.docker.distribution.manifest.v2+json")
    client.put_manifest("signed-index", "2", docker, "application/vnd.docker.distribution.manifest.v2+json")
    digest = attach(client, "signed-index", referrer(docker, SIGNATURE))
    assert set(listed(client, "signed-index", digest_of(docker))) == {digest}


def test_the_list_that_clients_keep_under_a_tag_is_taken_and_listed(
    registry_nodes: list[Node], registry_at: At, client: RegistryClient
) -> None:
    image = Image.random()
    client.push("by-tag", "1", image)
    digest = attach(client, "by-tag", referrer(image.manifest, SIGNATURE))
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(referrer(image.manifest, SIGNATURE))}
    other = {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    tag = image.digest.replace(":", "-")
    for entries in ([entry, other], []):
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        client.put_manifest("by-tag", tag, index, INDEX)
        for node in registry_nodes:
            assert registry_at(node).get(f"/v2/by-tag/manifests/{tag}").content == index
            # What doesn't have this subject is no referrer, whatever the tag lists.
            assert set(listed(registry_at(node), "by-tag", image.digest)) == {digest}


def test_an_invalid_subject_is_refused(client: RegistryClient) -> None:
    assert error_of(client.get("/v2/signed/referrers/sha256:12")) == (400, ["DIGEST_INVALID"])
    assert error_of(client.ask("DELETE", f"/v2/signed/referrers/sha256:{'0' * 64}")) == (405, ["UNSUPPORTED"])


@pytest.mark.usefixtures("images_are_forgotten")
def test_images_without_a_tag_go_on_request_and_what_a_tag_needs_stays(
    cluster: Cluster, registry_nodes: list[Node], registry_at: At, client: RegistryClient
) -> None:
    # What other scenarios left.
    registry_gc.remove_untagged(cluster, grace=-1)
    nightly = [Image.random(100_000) for _ in range(6)]
    for image in nightly:
        client.push("nightly", "latest", image)
    parts = [Image.random(), Image.random()]
    for image in parts:
        client.push("nightly", image.digest, image)
    index = registry_client.index_of(parts)
    client.put_manifest("nightly", "all", index, INDEX)
    kept = [attach(client, "nightly", referrer(subject, SIGNATURE)) for subject in (nightly[-1].manifest, index)]
    kept += [attach(client, "nightly", referrer(parts[0].manifest, SBOM))]
    gone = attach(client, "nightly", referrer(nightly[0].manifest, SIGNATURE))

    # All of these were pushed, or lost their tag, within the hour.
    assert registry_gc.remove_untagged(cluster) == 0
    assert registry_gc.remove_untagged(cluster, grace=-1) == len(nightly) - 1 + 1
    freed = registry_gc.collect(registry_nodes, grace=-1)
    assert not [each.problem for each in freed if each.problem]
    assert all(each.bytes >= (len(nightly) - 1) * 100_000 for each in freed)
    for node in registry_nodes:
        at = registry_at(node)
        assert at.pull("nightly", "latest") == nightly[-1]
        assert at.get("/v2/nightly/manifests/all").content == index
        for image in parts:
            assert at.pull("nightly", image.digest) == image
        for digest in kept:
            assert at.get(f"/v2/nightly/manifests/{digest}").status_code == 200
        for digest in (gone, *(image.digest for image in nightly[:-1])):
            assert error_of(at.get(f"/v2/nightly/manifests/{digest}")) == (404, ["MANIFEST_UNKNOWN"])
        assert listed(at, "nightly", nightly[0].digest) == {}
    assert registry_gc.remove_untagged(cluster, grace=-1) == 0
    client.push("nightly", "latest", nightly[0])
    assert registry_at(registry_nodes[-1]).pull("nightly", "latest") == nightly[0]
