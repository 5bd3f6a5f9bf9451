"""Whatever happens to one of its nodes, the registry continues, and keeps everything that it acknowledged."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from fixtures.registry_load import Acknowledged, Pulling, Pushing, is_proper
from swarmer.clients import registry_client
from swarmer.clients.registry_client import Image, RegistryClient, RegistryError, Unavailable
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.node.registry.lease import LOCK_DELAY
from swarmer.pool import Pool

Record = Callable[[str, object], None]

At = Callable[[Node], RegistryClient]

pytestmark = pytest.mark.usefixtures("images_are_forgotten")

three_servers = pytest.mark.needs_servers(3)

#: Seconds from a fault to the next acknowledged push. A silent node is declared dead within 3 s on a quiet host, the
#: lock-delay is 1.5 s; a program that hangs fails its check twice, or its session isn't renewed for 10 to 20 s. A
#: client that asked the paused leader itself times out after 20 s.
WRITE_BOUND = {"power-off": 15, "kill": 10, "pause": 40, "partition": 15}

#: The faults of the leader: what happens, and to which of its programs.
FAULTS = [
    "power-off",
    "partition",
    "kill swarmer-registry",
    "kill docker-registry",
    "kill nginx",
    "pause swarmer-registry",
    "pause docker-registry",
    "pause nginx",
    "pause consul",
]

_repositories = (f"failover-{number}" for number in itertools.count(1))


@pytest.fixture
def repository() -> str:
    """A repository for this scenario alone."""
    return next(_repositories)


def fault(what: str, faults: Faults, cluster: Cluster, node: Node) -> AbstractContextManager[None]:
    """A fault that takes a node's registry away."""
    others = [other for other in cluster.nodes if other is not node]
    match what.split():
        case ["power-off"]:
            return faults.power_off(node)
        case ["partition"]:
            return faults.partition([node], others)
        case ["kill", unit]:
            return faults.kill(node, unit)
        case ["pause", unit]:
            return faults.stop(node, unit=unit)
        case _:
            raise ValueError(what)


def by_name(cluster: Cluster, asked: Node) -> Callable[[], list[RegistryClient]]:
    """Clients of the addresses that a node's DNS has for the registry's name at that moment."""
    return lambda: [
        registry_client.pusher(cluster, address, timeout=(0.5, 5))
        for address in registry_client.addresses(cluster, asked)
    ]


def nothing_is_lost(pushes: list[Acknowledged], clients: list[RegistryClient]) -> None:
    """Pull every tag from every node; those that were acknowledged exist, with the image that was pushed."""
    assert pushes
    acknowledged = {(push.repository, push.tag): push.image for push in pushes}
    tags = [
        (repository, tag)
        for repository in sorted({push.repository for push in pushes})
        for tag in clients[0].get(f"/v2/{repository}/tags/list").json()["tags"]
    ]
    assert acknowledged.keys() <= set(tags)
    with Pool(8) as pool:
        for client in clients:
            for found, image in zip(tags, pool.map(lambda tag, client=client: client.pull(*tag), tags), strict=True):
                assert image == acknowledged.get(found, image), f"{client.address} {found}"


@pytest.mark.smoke
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
            assert other.succeed(f"docker run --rm {image} echo works").strip() == "works"
    # An image has a digest for each repository that it was pushed to or pulled from.
    known = [
        json.loads(node.succeed(f"docker inspect --format '{{{{json .RepoDigests}}}}' {name}:{nodes[0].name}"))
        for node in nodes
    ]
    digests = {digest for each in known for digest in each if digest.startswith(f"{name}@sha256:")}
    assert len(digests) == 1


@three_servers
@pytest.mark.parametrize("what", FAULTS)
def test_during_pushes_the_leader_is_lost_and_no_acknowledged_image(
    cluster: Cluster,
    registry_leader: Node,
    clients: list[RegistryClient],
    faults: Faults,
    what: str,
    repository: str,
    record_property: Record,
) -> None:
    with Pushing(clients, repository) as pushing, Pushing(clients[::-1], f"{repository}/other") as other:
        pushing.wait_for_more()
        with fault(what, faults, cluster, registry_leader):
            seconds = pushing.wait_for_more(timeout=WRITE_BOUND[what.split()[0]])
            other.wait_for_more(timeout=WRITE_BOUND[what.split()[0]])
        pushing.wait_for_more()
    record_property("seconds_until_next_push", round(seconds, 3))
    assert [*pushing.improper, *other.improper] == []
    nothing_is_lost([*pushing.acknowledged, *other.acknowledged], clients)


@three_servers
@pytest.mark.parametrize("what", FAULTS)
def test_during_pulls_the_leader_is_lost_and_pulls_by_name_go_on(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    what: str,
    repository: str,
    record_property: Record,
) -> None:
    image = Image.random(layers=2)
    registry_at(registry_leader).push(repository, "1", image)
    with Pulling(by_name(cluster, registry_followers[0]), repository, "1", image) as pulling:
        pulling.wait_for_more()
        with fault(what, faults, cluster, registry_leader):
            pulling.wait_for_more(20, timeout=15)
        pulling.wait_for_more()
    record_property("seconds_without_a_pull", round(pulling.longest_gap(), 3))
    assert pulling.wrong == []


@three_servers
def test_an_upload_on_its_way_to_a_leader_that_is_cut_off_ends_soon(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    repository: str,
) -> None:
    follower = registry_at(registry_followers[0])
    location = follower.ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
    with ExitStack() as stack:

        def content() -> Iterator[bytes]:
            yield b"before"
            stack.enter_context(fault("partition", faults, cluster, registry_leader))
            yield b"after"

        # The node in between gets no sign that what it forwards doesn't arrive.
        answer = follower.ask("PATCH", location, data=content(), timeout=WRITE_BOUND["partition"])
        assert answer.status_code == 503
        assert is_proper(RegistryError(answer))


@three_servers
def test_while_a_follower_hangs_pushes_go_on(
    registry_leader: Node, registry_followers: list[Node], registry_at: At, faults: Faults, repository: str
) -> None:
    leader = registry_at(registry_leader)
    for follower in registry_followers:
        with faults.stop(follower, unit="docker-registry"), Pool(16) as pool:
            # In parallel, while no node knows yet that it hangs.
            tags = [f"{follower.name}-{number}" for number in range(16)]
            pushes = [pool.submit(leader.push, repository, tag, Image.random()) for tag in tags]
            pool.results(pushes, timeout=registry_leader.scaled(WRITE_BOUND["kill"]))


def test_a_node_that_answers_too_late_says_try_again(
    registry_leader: Node, registry_at: At, faults: Faults, repository: str
) -> None:
    path = f"/v2/{repository}/tags/list"
    given_up = f"journalctl --boot --unit=nginx | grep 'timed out.*{path}.*subrequest: \"/route\"'"
    with Pool(1) as pool, faults.stop(registry_leader, unit="swarmer-registry"):
        asked = pool.submit(registry_at(registry_leader).get, path, timeout=20)
        # Now nginx asks for the reason, and gets an answer again.
        registry_leader.wait_until_succeeds(given_up, timeout=20)
    answer = asked.result()
    assert answer.status_code == 503
    assert is_proper(RegistryError(answer))


@three_servers
def test_a_cut_leaves_one_writer_seen_from_both_sides(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    repository: str,
) -> None:
    one_side = Pushing([registry_at(registry_leader)], repository, tag="contested")
    other_side = Pushing([registry_at(node) for node in registry_followers], repository, tag="contested")
    with one_side, other_side:
        one_side.wait_for_more()
        other_side.wait_for_more()
        cut = time.monotonic()
        with fault("partition", faults, cluster, registry_leader):
            other_side.wait_for_more(10)
            healed = time.monotonic()
        one_side.wait_for_more()
    # During the cut, one side got its last answer before the other one got its first.
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
    with ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        loads[0].wait_for_more()
        with faults.stop(registry_leader, unit="swarmer-registry"):
            registry_leader.until(
                "a push with the leader paused",
                lambda: follower.push(repository, "contested", newer),
                timeout=40,
                retry_on=(RegistryError, *Unavailable),
            )
            pushed = time.monotonic()
            for load in loads:
                load.end()
    # Requests in the paused program were refused, or went to the new leader, which acknowledged them.
    later = {push.image.digest for load in loads for push in load.acknowledged if push.ended > pushed}
    assert follower.digest(repository, "contested") in {newer.digest, *later}
    assert old.digest(repository, "contested") == follower.digest(repository, "contested")


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
            assert refused.value.status == 503
            assert is_proper(refused.value)
    assert leader.pull(repository, "1") == image
    assert leader.get(f"/v2/{repository}/tags/list").json()["tags"] == ["1"]


@three_servers
def test_what_only_the_leader_can_have_is_not_acknowledged(
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    repository: str,
) -> None:
    """Consul has its quorum; only the copies are missing, since no other node takes one."""
    leader = registry_at(registry_leader)
    leader.push(repository, "1", Image.random())
    with faults.stop(*registry_followers, unit="nginx"):
        with pytest.raises((RegistryError, *Unavailable)) as refused:
            leader.push(repository, "2", Image.random())
        if isinstance(refused.value, RegistryError):
            assert refused.value.status == 503
            assert is_proper(refused.value)
    assert leader.get(f"/v2/{repository}/tags/list").json()["tags"] == ["1"]


@three_servers
def test_between_two_leaders_lies_the_time_in_which_the_former_one_stops(cluster: Cluster) -> None:
    """A leader that lost its session changes nothing from then on for certain; until then, nobody may take its lock."""
    _, lock = cluster.consul.kv.get("registry/leader", consistency="consistent")
    _, session = cluster.consul.session.info(lock["Session"], consistency="consistent")
    assert session["LockDelay"] >= LOCK_DELAY * 1e9, "nanoseconds"
