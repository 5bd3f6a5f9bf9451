"""When a program of the leader hangs, clients of the other nodes get an answer, and downloads continue."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fixtures.registry import check_disk
from fixtures.registry_load import is_proper
from swarmer.clients.registry_client import MANIFEST, Image, RegistryClient, RegistryError
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.pool import Pool
from swarmer.wait import NotYet

At = Callable[[Node], RegistryClient]

Record = Callable[[str, object], None]

pytestmark = [pytest.mark.needs_servers(3), pytest.mark.usefixtures("images_are_forgotten")]

#: Seconds from another leader to the answer to a request that still waits for the former one.
SOON = 5

#: Seconds from the hang to another leader: two failed checks, or a session that isn't renewed for 10 to 20 s.
NEXT_LEADER = 30

LARGE = 96 << 20


class Halting:
    """The body of a request, with a function called in its middle.

    Args:
        happen: called when one half was sent; the other half is sent when it returns.
    """

    def __init__(self, content: bytes, happen: Callable[[], None]) -> None:
        self._length = len(content)
        self._parts = self._halves(content, happen)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def read(self, _size: int = -1) -> bytes:
        """The next half; empty at the end."""
        return next(self._parts, b"")

    def _halves(self, content: bytes, happen: Callable[[], None]) -> Iterator[bytes]:
        half = len(content) // 2
        yield content[:half]
        happen()
        yield content[half:]


def another_leader(cluster: Cluster, former: Node) -> float:
    """Wait until another node leads the registry; the time by `time.monotonic`."""

    def probe() -> float:
        if cluster.registry_leader() is former:
            raise NotYet(f"{former.name} leads")
        return time.monotonic()

    return cluster.until("another leader of the registry", probe, timeout=NEXT_LEADER, interval=0.05)


@pytest.mark.parametrize(
    ("asked", "program"),
    [
        ("a follower", "nginx"),
        ("a follower", "swarmer-registry"),
        ("a follower", "docker-registry"),
        ("a follower", "registry-forwarder"),
        ("the leader", "docker-registry"),
    ],
)
@pytest.mark.parametrize("what", ["upload", "manifest"])
def test_a_request_that_waits_for_a_leader_that_hangs_is_answered_soon_after_another_one_leads(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    record_property: Record,
    asked: str,
    program: str,
    what: str,
) -> None:
    repository, image = f"hangs-{program}", Image.random()
    client = registry_at(registry_leader if asked == "the leader" else registry_followers[0])
    client.timeout = 60
    for digest, content in image.blobs.items():
        client.push_blob(repository, digest, content)
    if what == "upload":
        method, content = "PATCH", bytes(1000)
        path = client.ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
    else:
        method, content, path = "PUT", image.manifest, f"/v2/{repository}/manifests/1"
    with ExitStack() as stack, Pool(1) as pool:
        body = Halting(content, lambda: stack.enter_context(faults.stop(registry_leader, unit=program)))

        def ask() -> tuple[float, int, bool, str]:
            answer = client.ask(method, path, data=body, headers={"Content-Type": MANIFEST})
            retry = answer.headers.get("Retry-After", "")
            return time.monotonic(), answer.status_code, is_proper(RegistryError(answer)), retry

        waiting = pool.submit(ask)
        led = another_leader(cluster, registry_leader)
        ((answered, status, proper, retry),) = pool.results([waiting], timeout=cluster.scaled(60))
        registry_at(registry_followers[0]).push(repository, "2", image)
    record_property("seconds_after_another_leader", round(answered - led, 3))
    # Not every program that hangs is needed for every request.
    assert (status, proper, retry) == (503, True, "1") or status in (201, 202)
    assert answered - led < cluster.scaled(SOON)


@pytest.mark.means_failure("swarmer-registry.service")
def test_a_request_in_the_leaders_own_program_ends_when_that_hangs_for_a_minute(
    registry_leader: Node, registry_at: At, faults: Faults
) -> None:
    repository, image = "hangs-itself", Image.random()
    client = registry_at(registry_leader)
    for digest, content in image.blobs.items():
        client.push_blob(repository, digest, content)
    with ExitStack() as stack:
        body = Halting(
            image.manifest, lambda: stack.enter_context(faults.stop(registry_leader, unit="swarmer-registry"))
        )
        path = f"/v2/{repository}/manifests/1"
        answer = client.ask("PUT", path, data=body, headers={"Content-Type": MANIFEST}, timeout=60 + 15)
        registry_leader.wait_for_unit("swarmer-registry")
    assert answer.status_code == 503
    assert is_proper(RegistryError(answer))


@pytest.mark.parametrize("where", ["its own disk", "another node"])
def test_a_download_from_a_healthy_node_goes_on_while_another_node_becomes_the_leader(
    cluster: Cluster,
    registry_leader: Node,
    registry_followers: list[Node],
    registry_at: At,
    faults: Faults,
    where: str,
) -> None:
    repository, image = "goes-on", Image.random(LARGE)
    asked, other = registry_followers
    registry_at(registry_leader).push(repository, "1", image)
    check_disk(asked, [image])
    check_disk(other, [image])
    layer = next(digest for digest, content in image.blobs.items() if len(content) == LARGE)
    if where == "another node":
        # nginx asks the first other node that has it; that must not be the leader, which hangs.
        for node in (asked, registry_leader):
            node.succeed(f"rm -r {folder_of(layer)}")
    answer = registry_at(asked).get(f"/v2/{repository}/blobs/{layer}", stream=True, timeout=60)
    parts = answer.iter_content(1 << 20)
    digest = hashlib.sha256(next(parts))
    with faults.stop(registry_leader, unit="docker-registry"):
        another_leader(cluster, registry_leader)
        asked.wait_until_succeeds(
            "journalctl --boot --unit=swarmer-registry | grep 'ended the requests that waited'", timeout=10
        )
        for part in parts:
            digest.update(part)
    assert f"sha256:{digest.hexdigest()}" == layer


def folder_of(digest: str) -> str:
    """The folder of a blob on a node's disk."""
    value = digest.removeprefix("sha256:")
    return f"/var/lib/docker-registry/docker/registry/v2/blobs/sha256/{value[:2]}/{value}"
