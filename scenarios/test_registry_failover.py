"""What the registry acknowledged stays, and it goes on, whatever happens to one of its nodes."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from fixtures.registry_load import Acknowledged, Pulling, Pushing
from swarmer import registry_client
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.registry_client import Image, RegistryClient, RegistryError, Unavailable
from swarmer.wait import NotYet, until

Record = Callable[[str, object], None]
At = Callable[[Node], RegistryClient]

three_servers = pytest.mark.needs_servers(3)

#: Seconds from a fault to the next acknowledged push. A silent node is declared dead within 3 s on a quiet host, the
#: lock-delay is 1.5 s; a program that hangs is noticed when its session isn't renewed, after 10 to 20 s.
WRITE_BOUND = {"power-off": 15, "kill": 10, "pause": 30, "partition": 15}

_repositories = (f"failover-{number}" for number in itertools.count(1))


@pytest.fixture
def repository() -> str:
    """A repository of this scenario's own."""
    return next(_repositories)


@pytest.fixture
def clients(registry_nodes: list[Node], registry_at: At) -> list[RegistryClient]:
    """One for each registry node, the way a client goes that tries them one after the other."""
    return [registry_at(node) for node in registry_nodes]


def fault(kind: str, faults: Faults, cluster: Cluster, node: Node) -> AbstractContextManager[None]:
    """Something that takes a node's registry away."""
    others = [other for other in cluster.nodes if other is not node]
    match kind:
        case "power-off":
            return faults.power_off(node)
        case "kill":
            return faults.kill(node, "swarmer-registry")
        case "pause":
            return faults.stop(node, "swarmer-registry")
        case _:
            return faults.partition([node], others)


def by_name(cluster: Cluster, asked: Node) -> Callable[[], list[RegistryClient]]:
    """Clients of the addresses that the registry's name has, as a node's DNS tells just then."""
    return lambda: [
        registry_client.pusher(cluster, address, timeout=(0.5, 5))
        for address in registry_client.addresses(cluster, asked)
    ]


def nothing_is_lost(pushes: list[Acknowledged], clients: list[RegistryClient]) -> None:
    """Every acknowledged image is pulled from every node, whole, with the digests that were pushed."""
    assert pushes
    with ThreadPoolExecutor(8) as pool:
        for client in clients:
            pulled = pool.map(lambda push, client=client: client.pull(push.repository, push.tag), pushes)
            for push, image in zip(pushes, pulled, strict=True):
                assert image == push.image, f"{client.address} {push.repository}:{push.tag}"


def test_what_one_node_pushes_every_other_node_pulls(
    nodes: list[Node], registry_host: str, busybox_image: str, logged_in: Callable[[Node], None], repository: str
) -> None:
    name = f"{registry_host}/{repository}"
    for node in nodes:
        logged_in(node)
        image = f"{name}:{node.name}"
        node.succeed(f"docker tag {busybox_image} {image} && docker push {image} && docker logout {registry_host}")
        for other in nodes:
            other.succeed(f"docker rmi --force {image}; docker pull {image}")
            pulled = other.succeed(f"docker inspect --format '{{{{index .RepoDigests 0}}}}' {image}")
            assert pulled.startswith(f"{name}@sha256:")
            assert other.succeed(f"docker run --rm {image} echo works").strip() == "works"
    digests = {
        node.succeed(f"docker inspect --format '{{{{index .RepoDigests 0}}}}' {name}:{nodes[0].name}") for node in nodes
    }
    assert len(digests) == 1


@three_servers
@pytest.mark.parametrize("kind", ["power-off", "kill", "pause", "partition"])
def test_during_pushes_the_leader_is_lost_and_no_acknowledged_image(
    cluster: Cluster,
    registry_leader: Node,
    clients: list[RegistryClient],
    faults: Faults,
    kind: str,
    repository: str,
    record_property: Record,
) -> None:
    with Pushing(clients, repository) as pushing, Pushing(clients[::-1], f"{repository}/other") as other:
        pushing.wait_for_more()
        with fault(kind, faults, cluster, registry_leader):
            seconds = pushing.wait_for_more(timeout=WRITE_BOUND[kind])
            other.wait_for_more()
        pushing.wait_for_more()
    record_property("seconds_until_next_push", round(seconds, 3))
    assert [*pushing.improper, *other.improper] == []
    nothing_is_lost([*pushing.acknowledged, *other.acknowledged], clients)


@three_servers
@pytest.mark.parametrize("kind", ["power-off", "kill", "pause", "partition"])
def test_during_pulls_the_leader_is_lost_and_pulls_by_name_go_on(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    kind: str,
    repository: str,
    record_property: Record,
) -> None:
    image = Image.random(layers=2)
    registry_at(registry_leader).push(repository, "1", image)
    with Pulling(by_name(cluster, registry_followers[0]), repository, "1", image) as pulling:
        pulling.wait_for_more()
        with fault(kind, faults, cluster, registry_leader):
            pulling.wait_for_more(20, timeout=15)
        pulling.wait_for_more()
    record_property("seconds_without_a_pull", round(pulling.longest_gap(), 3))
    assert pulling.wrong == []


@three_servers
def test_a_cut_leaves_one_writer_seen_from_both_sides(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    repository: str,
) -> None:
    rest = [node for node in cluster.nodes if node is not registry_leader]
    one_side = Pushing([registry_at(registry_leader)], repository, tag="contested")
    other_side = Pushing([registry_at(node) for node in registry_followers], repository, tag="contested")
    with one_side, other_side:
        one_side.wait_for_more()
        other_side.wait_for_more()
        cut = time.monotonic()
        with faults.partition([registry_leader], rest):
            other_side.wait_for_more(10)
            healed = time.monotonic()
        one_side.wait_for_more()
    # While the cut lasted, one side got its last answer before the other one got its first.
    during = [push for push in one_side.acknowledged if cut <= push.ended < healed and push.began > cut]
    beyond = [push for push in other_side.acknowledged if push.began > cut]
    assert len(beyond) >= 10
    assert all(push.ended < beyond[0].ended for push in during)
    # And the tag is what the last acknowledged push made it.
    pushes = sorted([*one_side.acknowledged, *other_side.acknowledged], key=lambda push: push.ended)
    candidates = {push.image.digest for push in pushes if push.ended >= pushes[-1].began}
    for node in cluster.registry_nodes:
        assert registry_at(node).digest(repository, "contested") in candidates


@three_servers
def test_a_leader_that_was_paused_changes_nothing_when_it_wakes(
    registry_leader: Node, registry_followers: list[Node], registry_at: At, faults: Faults, repository: str
) -> None:
    old, follower = registry_at(registry_leader), registry_at(registry_followers[0])
    old.timeout = 60
    loads = [Pushing([old], repository, tag="contested") for _ in range(6)]
    newer = Image.random()
    for load in loads:
        load.__enter__()
    try:
        loads[0].wait_for_more()
        with faults.stop(registry_leader, "swarmer-registry"):
            until(
                "a push with the leader paused",
                lambda: follower.push(repository, "contested", newer),
                timeout=40,
                pardon=(RegistryError, *Unavailable),
            )
            pushed = time.monotonic()
            for load in loads:
                load._ended.set()
    finally:
        for load in loads:
            load.__exit__(None, None, None)
    # What was under way in the paused one was refused, or went to the new leader and was acknowledged by that.
    later = {push.image.digest for load in loads for push in load.acknowledged if push.ended > pushed}
    assert follower.digest(repository, "contested") in {newer.digest, *later}
    assert old.digest(repository, "contested") == follower.digest(repository, "contested")


@three_servers
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
    until(
        "a push to another leader",
        lambda: elsewhere.push(repository, "moving", new),
        timeout=20,
        pardon=(RegistryError, *Unavailable),
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

    until("the returning node to serve", probe, timeout=60, interval=0.02, pardon=Unavailable)
    registry_leader.wait_booted()
    cluster.wait_converged()
    assert {digest for tag, status, digest in seen if (tag, status) == ("moving", 200)} == {new.digest}
    assert not any(tag == "deleted" and status == 200 for tag, status, _ in seen)
    data = f"/var/lib/docker-registry/docker/registry/v2/blobs/sha256/{new.digest[7:9]}/{new.digest[7:]}/data"
    registry_leader.succeed(f"test -e {data}")


@three_servers
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


def test_the_whole_registry_survives_a_power_cut(
    cluster: Cluster, clients: list[RegistryClient], faults: Faults, repository: str
) -> None:
    with Pushing(clients, repository) as pushing:
        pushing.wait_for_more(5)
        with faults.power_off(*cluster.nodes):
            pass
        pushing.wait_for_more()
    assert pushing.improper == []
    nothing_is_lost(pushing.acknowledged, clients)
    tags = clients[0].get(f"/v2/{repository}/tags/list").json()["tags"]
    assert {push.tag for push in pushing.acknowledged} <= set(tags)


@three_servers
def test_without_a_majority_nothing_is_acknowledged(
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    repository: str,
) -> None:
    leader = registry_at(registry_leader)
    image = Image.random()
    leader.push(repository, "1", image)
    with faults.power_off(*registry_followers):
        with pytest.raises((RegistryError, *Unavailable)) as refused:
            leader.push(repository, "2", Image.random())
        if isinstance(refused.value, RegistryError):
            assert (refused.value.status, refused.value.codes) == (503, ["UNAVAILABLE"])
    assert leader.pull(repository, "1") == image
    assert leader.get(f"/v2/{repository}/tags/list").json()["tags"] == ["1"]
