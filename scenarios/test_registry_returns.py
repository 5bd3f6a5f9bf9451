"""A registry node that returns, with an old disk, a damaged one or none, fetches everything before it serves."""

import itertools
from collections.abc import Callable

import pytest

from fixtures.registry import check_disk
from swarmer.clients.registry_client import Image, RegistryClient, RegistryError, Unavailable
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.wait import NotYet

At = Callable[[Node], RegistryClient]

pytestmark = pytest.mark.needs_servers(3)

TREE = "/var/lib/docker-registry/docker/registry/v2"

_repositories = (f"returns-{number}" for number in itertools.count(1))


@pytest.fixture
def repository() -> str:
    """A repository for this scenario alone."""
    return next(_repositories)


def test_a_former_leader_that_returns_serves_no_old_tag(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    repository: str,
) -> None:
    at_leader, elsewhere = registry_at(registry_leader), registry_at(registry_followers[0])
    old, gone, new = Image.random(), Image.random(), Image.random()
    at_leader.push(repository, "moving", old)
    at_leader.push(repository, "deleted", gone)
    registry_leader.power_off()
    cluster.until(
        "a push to another leader",
        lambda: elsewhere.push(repository, "moving", new),
        timeout=20,
        retry_on=(RegistryError, *Unavailable),
    )
    assert elsewhere.ask("DELETE", f"/v2/{repository}/manifests/{gone.digest}").status_code == 202
    seen: list[tuple[str, int, str]] = []
    cluster.stack.power_on(registry_leader.name)
    at_leader.timeout = 3

    def probe() -> None:
        answers = []
        for tag in ("moving", "deleted"):
            answer = at_leader.get(f"/v2/{repository}/manifests/{tag}")
            answers.append((tag, answer.status_code, answer.headers.get("Docker-Content-Digest", "")))
        seen.extend(answers)
        if answers != [("moving", 200, new.digest), ("deleted", 404, "")]:
            raise NotYet(str(answers))

    cluster.until("the returning node to serve", probe, timeout=60, interval=0.02, retry_on=Unavailable)
    registry_leader.wait_booted()
    cluster.wait_converged()
    assert {digest for tag, status, digest in seen if (tag, status) == ("moving", 200)} == {new.digest}
    assert not any(tag == "deleted" and status == 200 for tag, status, _ in seen)
    data = f"/var/lib/docker-registry/docker/registry/v2/blobs/sha256/{new.digest[7:9]}/{new.digest[7:]}/data"
    registry_leader.succeed(f"test -e {data}")


def test_a_node_with_an_empty_disk_gets_everything_before_it_counts(
    cluster: Cluster, registry_followers: list[Node], registry_at: At, repository: str
) -> None:
    images = {f"v{number}": Image.random(200_000, layers=3) for number in range(5)}
    for tag, image in images.items():
        registry_at(registry_followers[0]).push(repository, tag, image)
    registry_followers[1].replace()
    cluster.wait_converged()
    for tag, image in images.items():
        assert registry_at(registry_followers[1]).pull(repository, tag) == image
    found = registry_followers[1].succeed("find /var/lib/docker-registry -path '*/blobs/*/data' | xargs cat | wc -c")
    assert int(found) >= 5 * 3 * 200_000


def test_content_that_silent_nodes_may_have_is_not_taken_for_lost(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    repository: str,
) -> None:
    image = Image.random()
    registry_at(registry_leader).push(repository, "1", image)
    returning, other = registry_followers
    units = "swarmer-registry docker-registry"
    silent = (registry_leader, other)
    for node in silent:
        node.succeed("systemctl stop docker-registry")
    try:
        returning.succeed(f"systemctl stop {units} && rm -r {TREE} && systemctl start {units}")
        journal = "journalctl --unit=swarmer-registry --output=cat _SYSTEMD_INVOCATION_ID=$(systemctl show --property="
        journal += "InvocationID --value swarmer-registry)"
        failed = f"{journal} | grep -F 'could not fetch {repository}@{image.digest} yet'"
        returning.wait_until_succeeds(failed, timeout=30)
    finally:
        for node in silent:
            node.succeed("systemctl start docker-registry")
    cluster.wait_converged()
    check_disk(returning, [image])
    returning.fail(f"{journal} | grep -F 'is lost'")


def test_content_that_all_nodes_have_lost_is_on_every_disk_after_another_push(
    cluster: Cluster, registry_at: At, repository: str
) -> None:
    image = Image.random()
    registry_at(cluster.registry_leader()).push(repository, "1", image)
    units = "swarmer-registry docker-registry"
    for node in cluster.registry_nodes:
        node.succeed(f"systemctl stop {units}")
    for node in cluster.registry_nodes:
        node.succeed(f"rm -r {TREE} && systemctl start {units}")
    lost = f"journalctl --unit=swarmer-registry --output=cat | grep -F '{repository}@{image.digest} is lost'"
    for node in cluster.registry_nodes:
        node.wait_until_succeeds(lost, timeout=60)
    cluster.wait_converged()
    registry_at(cluster.registry_leader()).push(repository, "1", image)
    for node in cluster.registry_nodes:
        check_disk(node, [image], timeout=90)


def test_what_a_power_cut_left_of_a_file_is_fetched_again(
    cluster: Cluster, registry_leader: Node, registry_followers: list[Node], registry_at: At, repository: str
) -> None:
    image = Image.random()
    registry_at(registry_leader).push(repository, "1", image)
    returning = registry_followers[0]
    returning.wait_until_succeeds(f"test -s {TREE}/blobs/sha256/{image.digest[7:9]}/{image.digest[7:]}/data")
    # docker-registry writes these in place: a power cut may leave an empty file.
    manifest = f"{TREE}/blobs/sha256/{image.digest[7:9]}/{image.digest[7:]}/data"
    links = f"{TREE}/repositories/{repository} -name link"
    returning.succeed("systemctl stop swarmer-registry")
    returning.succeed(f"truncate --size=0 {manifest} $(find {links})")
    returning.succeed("systemctl start swarmer-registry")
    cluster.wait_converged()
    check_disk(returning, [image])
    returning.fail(f"find {links} -empty | grep .")
    assert registry_at(returning).pull(repository, "1") == image
