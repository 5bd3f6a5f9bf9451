"""With content in a bucket, every registry node serves and accepts images, and any of them may fail."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.cluster import watched
from fixtures.registry_load import Pushing
from fixtures.registry_s3 import BUCKET, S3, instance_role
from swarmer.audit import Audit
from swarmer.clients import registry_client
from swarmer.clients.registry_client import Image, RegistryClient
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.lifecycle import OwnedCluster
from swarmer.wait import NotYet

# The fixtures of this module replace those of the run's cluster by those of a separate one.


@pytest.fixture(scope="module")
def owned_cluster(owned_s3_cluster: OwnedCluster) -> OwnedCluster:
    """The cluster that the health gate may relaunch."""
    return owned_s3_cluster


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, owned_cluster: OwnedCluster, run_folder: Path) -> Iterator[Cluster]:
    """The cluster that the scenarios run on."""
    with watched(request.config, owned_cluster.cluster, run_folder / "journal-s3") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def audit(cluster: Cluster) -> Audit:
    """What its journals complained about since the last scenario."""
    return Audit.from_now_on(cluster)


@pytest.fixture
def clients(cluster: Cluster) -> list[RegistryClient]:
    """One for each registry node."""
    return [registry_client.pusher(cluster, node.ip) for node in cluster.registry_nodes]


def test_every_node_takes_images_and_every_node_has_them(clients: list[RegistryClient], s3: S3) -> None:
    images = {f"by-{number}": Image.random(300_000, layers=2) for number in range(len(clients))}
    for client, (tag, image) in zip(clients, images.items(), strict=True):
        client.push("in/bucket", tag, image)
    for client in clients:
        assert client.get("/v2/in/bucket/tags/list").json() == {"name": "in/bucket", "tags": sorted(images)}
        assert "in/bucket" in client.get("/v2/_catalog").json()["repositories"]
        for tag, image in images.items():
            assert client.pull("in/bucket", tag) == image
    stored = s3.objects()
    for image in images.values():
        for digest in (image.digest, *image.blobs):
            assert any(digest.removeprefix("sha256:") in name and name.endswith("/data") for name in stored)


def test_an_upload_begun_at_one_node_goes_on_at_another(clients: list[RegistryClient]) -> None:
    image = Image.random(10_000)
    for digest, content in image.blobs.items():
        first, second, third = (clients * 3)[:3]
        begun = first.ask("POST", "/v2/wandering/blobs/uploads/").headers["Location"]
        sent = second.ask("PATCH", begun, data=content)
        assert sent.status_code == 202
        assert third.ask("PUT", sent.headers["Location"], params={"digest": digest}).status_code == 201
    clients[-1].put_manifest("wandering", "1", image.manifest)
    assert clients[0].pull("wandering", "1") == image


def test_while_any_node_is_killed_pushes_go_on_and_nothing_is_lost(
    cluster: Cluster, clients: list[RegistryClient], faults: Faults
) -> None:
    for number, node in enumerate(cluster.registry_nodes):
        with Pushing(clients, f"killed-{number}") as pushing:
            pushing.wait_for_more()
            with faults.power_off(node):
                pushing.wait_for_more()
            pushing.wait_for_more()
        assert pushing.improper == []
        for push in pushing.acknowledged:
            assert clients[number].pull(push.repository, push.tag) == push.image


def test_credentials_are_for_root_alone(cluster: Cluster, s3: S3) -> None:
    for node in cluster.registry_nodes:
        readable = node.succeed(
            "find /var/lib/cloud /run/cloud-init /etc/swarmer /etc/docker /var/log -type f -perm /o+r -exec cat {} +"
        )
        assert s3.secret not in readable
        assert s3.secret in node.succeed("cat /etc/swarmer/registry/environment")
        mode = int(node.succeed("stat -c %a /etc/swarmer/registry/environment"), 8)
        assert stat.S_IMODE(mode) == 0o600
        # Nor in the arguments of a process, nor, for any user but root, in its environment.
        assert s3.secret not in node.succeed("ps axww -o args")
    assert s3.secret not in cluster.home.ledger.read_text()


def test_without_credentials_a_node_uses_the_role_of_its_instance(
    cluster: Cluster, s3: S3, clients: list[RegistryClient]
) -> None:
    node, image = cluster.registry_nodes[-1], Image.random()
    with _other_credentials(node, "/^AWS_/d"):
        _wait_critical(node, "NoCredentialProviders")
        with instance_role(node, s3):
            node.succeed("systemctl restart docker-registry")
            cluster.wait_converged()
            clients[-1].push("by/role", "1", image)
    assert clients[0].pull("by/role", "1") == image


def test_what_no_manifest_needs_is_collected_from_the_bucket(
    cluster: Cluster, s3: S3, clients: list[RegistryClient]
) -> None:
    kept, deleted = Image.random(), Image.random()
    clients[0].push("collected", "kept", kept)
    clients[0].push("collected", "deleted", deleted)
    assert clients[0].ask("DELETE", f"/v2/collected/manifests/{deleted.digest}").status_code == 202
    # As docs/registry.md has it.
    cluster.registry_nodes[-1].succeed(
        "systemd-run --pipe --wait --property=EnvironmentFile=/etc/swarmer/registry/environment "
        "docker-registry garbage-collect /etc/swarmer/registry/config.yml",
        timeout=120,
    )
    stored = "\n".join(s3.objects())
    for digest in (deleted.digest, *deleted.blobs):
        assert f"{digest.removeprefix('sha256:')}/data" not in stored
    for client in clients:
        assert client.pull("collected", "kept") == kept


def test_wrong_credentials_make_the_check_critical_and_say_why(
    cluster: Cluster, clients: list[RegistryClient], record_property: Callable[[str, object], None]
) -> None:
    node = cluster.registry_nodes[-1]
    with _other_credentials(node, "s/^\\(AWS_SECRET_ACCESS_KEY\\)=.*/\\1=wrong/"):
        record_property("said", _wait_critical(node, "SignatureDoesNotMatch"))

        def gone() -> None:
            found = registry_client.addresses(cluster, cluster.nodes[0])
            if node.ip in found or not found:
                raise NotYet(str(found))

        cluster.until("its address to go from DNS", gone, timeout=10)
        clients[0].push("meanwhile", "1", Image.random())


def test_the_nodes_use_the_bucket_of_the_file(cluster: Cluster) -> None:
    for node in cluster.registry_nodes:
        assert BUCKET in node.succeed("cat /etc/swarmer/registry/config.yml")
        assert node.succeed("find /var/lib/docker-registry -type f") == ""


@contextmanager
def _other_credentials(node: Node, sed: str) -> Iterator[None]:
    """A node whose docker-registry has an environment changed by a sed expression."""
    environment = "/etc/swarmer/registry/environment"
    node.succeed(f"cp -p {environment} /root/kept && sed -i '{sed}' {environment}")
    try:
        node.succeed("systemctl restart docker-registry")
        yield
    finally:
        node.succeed(f"mv /root/kept {environment} && systemctl restart docker-registry")
    node.cluster.wait_converged()


def _wait_critical(node: Node, reason: str) -> str:
    """The output of a node's check, once it is critical for that reason."""

    def probe() -> str:
        check = node.consul.agent.checks()["registry"]
        if check["Status"] != "critical" or reason not in check["Output"]:
            raise NotYet(f"{check['Status']}: {check['Output']}")
        return str(check["Output"])

    return node.until("the check to be critical, with the reason", probe, timeout=30)
