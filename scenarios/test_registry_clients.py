"""The programs of the field work with the registry: containerd and skopeo, on the nodes. Docker is everywhere else."""

import json
from collections.abc import Callable

from swarmer.clients import registry_client
from swarmer.clients.registry_client import INDEX, MANIFEST, Image, RegistryClient, digest_of
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.secrets.credentials import REGISTRY_PASSWORD

COPY = "skopeo --insecure-policy copy --authfile /root/.docker/config.json"


def test_containerd_pushes_from_a_node_with_the_password(
    cluster: Cluster, nodes: list[Node], registry_host: str, busybox_image: str, client: RegistryClient
) -> None:
    node = nodes[-1]
    password = cluster.credentials.tokens[REGISTRY_PASSWORD]
    files = "--tlscacert ca.crt --tlscert client.cert --tlskey client.key"
    name = f"{registry_host}/by/containerd:1"
    ctr = f"cd /etc/docker/certs.d/{registry_host} && ctr --namespace scenario images"
    node.succeed(f"docker tag {busybox_image} {name} && docker save {name} | ctr --namespace scenario images import -")
    try:
        refused = node.fail(f"{ctr} push {files} --user swarmer:wrong {name}")
        assert "401" in refused
        node.succeed(f"{ctr} push {files} --user swarmer:{password} {name}")
        node.succeed(f"{ctr} rm {name} && {ctr} pull {files} {name}")
    finally:
        node.succeed(f"{ctr} rm {name}; docker rmi {name}")
    assert client.digest("by/containerd", "1")


def test_skopeo_copies_and_looks(
    nodes: list[Node], registry_host: str, busybox_image: str, logged_in: Callable[[Node], None], client: RegistryClient
) -> None:
    node, name = nodes[0], f"docker://{registry_host}/by/skopeo"
    logged_in(node)
    node.succeed(f"{COPY} docker-daemon:{busybox_image} {name}:1 && {COPY} {name}:1 {name}:2")
    node.succeed(f"{COPY} --format oci {name}:1 {name}:oci && docker logout {registry_host}")
    inspected = json.loads(node.succeed(f"skopeo inspect {name}:1"))
    assert sorted(inspected["RepoTags"]) == ["1", "2", "oci"]
    assert inspected["Digest"] == client.digest("by/skopeo", "2")
    for other in nodes:
        other.succeed(f"docker pull {registry_host}/by/skopeo:oci")


def test_skopeo_copies_an_index_with_a_layer_that_is_kept_elsewhere(
    nodes: list[Node], registry_host: str, logged_in: Callable[[Node], None], client: RegistryClient
) -> None:
    node, name = nodes[-1], f"docker://{registry_host}/by"
    linux, windows = Image.random(), Image.random()
    document = json.loads(windows.manifest)
    base = b"a base image of Windows"
    document["layers"].insert(
        0,
        {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": digest_of(base),
            "size": len(base),
            "urls": ["https://mirror.example.org/base.tgz"],
        },
    )
    windows = Image(json.dumps(document).encode(), windows.blobs)
    for image in (linux, windows):
        client.push("by/other", image.digest, image)
    client.put_manifest("by/other", "all", registry_client.index_of([linux, windows]), INDEX)
    logged_in(node)
    node.succeed(f"{COPY} --all --preserve-digests {name}/other:all {name}/skopeo-index:all")
    node.succeed(f"skopeo inspect --raw {name}/skopeo-index:all | grep -F {windows.digest}")
    assert client.get(f"/v2/by/skopeo-index/manifests/{windows.digest}").headers["Content-Type"] == MANIFEST
    node.succeed(f"skopeo delete --authfile /root/.docker/config.json {name}/skopeo-index:all")
    node.succeed(f"docker logout {registry_host}")
    assert client.get("/v2/by/skopeo-index/manifests/all").status_code == 404
