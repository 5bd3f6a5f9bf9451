"""The registry limits what it accepts, and frees the space of unneeded content."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from fixtures.registry import begun_upload, check_disk, error_of
from fixtures.registry_load import Pushing
from swarmer.clients.registry_client import MANIFEST, Image, RegistryClient, RegistryError
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.commands import registry_gc
from swarmer.pool import Pool
from swarmer.wait import NotYet

At = Callable[[Node], RegistryClient]

pytestmark = pytest.mark.usefixtures("images_are_forgotten")


def test_the_number_of_uploads_at_once_is_bounded(client: RegistryClient) -> None:
    bound = 64
    refused: dict[int, str] = {}
    locations = [client.ask("POST", "/v2/many/blobs/uploads/").headers["Location"] for _ in range(bound + 6)]
    with ExitStack() as stack:
        begun = [stack.enter_context(begun_upload(client, location)) for location in locations]

        def probe() -> None:
            # Those that are let in wait for the rest of the content; the others are answered immediately.
            for number, connection in enumerate(begun):
                connection.setblocking(False)
                with suppress(ssl.SSLWantReadError):
                    refused.setdefault(number, connection.recv(65536).decode())
            if len(refused) < 6:
                raise NotYet(f"{len(refused)} are refused")

        client.until("what is beyond the bound to be refused", probe, timeout=10)
    assert len(refused) == 6
    assert all(answer.startswith("HTTP/1.1 429 ") and "TOOMANYREQUESTS" in answer for answer in refused.values())
    client.until(
        "uploads to be taken again",
        lambda: client.push("many", "1", Image.random()),
        timeout=10,
        retry_on=(RegistryError,),
    )


def test_a_large_manifest_may_come_without_its_size(registry_nodes: list[Node], registry_at: At) -> None:
    image = Image.random()
    for node in registry_nodes:
        client = registry_at(node)
        client.push("large", "1", image)

        def in_chunks(size: int) -> Iterator[bytes]:
            larger = image.manifest[:-1] + b" " * (size - len(image.manifest)) + image.manifest[-1:]
            return (larger[start : start + 10_000] for start in range(0, len(larger), 10_000))

        header = {"Content-Type": MANIFEST}
        put = client.ask("PUT", "/v2/large/manifests/2", data=in_chunks(4 << 20), headers=header)
        assert put.status_code == 201
        assert len(client.get("/v2/large/manifests/2").content) == 4 << 20
        put = client.ask("PUT", "/v2/large/manifests/2", data=in_chunks((4 << 20) + 1), headers=header)
        assert error_of(put) == (413, ["SIZE_INVALID"])


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(client: RegistryClient) -> None:
    location = client.ask("POST", "/v2/large/blobs/uploads/").headers["Location"]
    with begun_upload(client, location, length=(10 << 30) + 1) as connection:
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "SIZE_INVALID" in answer


@contextmanager
def small_disk(nodes: list[Node], size: int) -> Iterator[None]:
    """Registry nodes with a disk of `size` MiB, to which their content was copied."""
    root, units = "/var/lib/docker-registry", "swarmer-registry docker-registry"
    try:
        for node in nodes:
            node.succeed(
                f"systemctl stop {units} && cp -a {root} /run/kept && mount -t tmpfs -o size={size}m tmpfs {root}"
                f" && cp -a /run/kept/. {root}/ && rm -r /run/kept && systemctl start {units}"
            )
        yield
    finally:
        for node in nodes:
            node.succeed(f"systemctl stop {units}; umount {root}; rm -rf /run/kept; systemctl start {units}")


def test_a_full_disk_refuses_pushes_with_a_clear_error_and_serves_what_is_there(
    cluster: Cluster, registry_nodes: list[Node], registry_at: At
) -> None:
    for node in registry_nodes:
        registry_gc.collect([node], grace=0)
    client = registry_at(registry_nodes[0])
    kept = Image.random(1_000_000)
    client.push("full", "kept", kept)
    with small_disk(registry_nodes, 64):
        cluster.wait_converged()
        errors = []
        for number in range(12):
            try:
                client.push("full", f"big-{number}", Image.random(12_000_000))
            except RegistryError as error:
                errors.append(error)
        assert errors
        assert {(error.status, tuple(error.codes)) for error in errors} == {(412, ("DENIED",))}
        assert all("disk of the registry is full" in str(error) for error in errors)
        for node in registry_nodes:
            assert registry_at(node).pull("full", "kept") == kept
    cluster.wait_converged()


def test_an_upload_that_does_not_tell_its_size_leaves_no_full_disk(
    cluster: Cluster,
    registry_nodes: list[Node],
    registry_host: str,
    registry_at: At,
    logged_in: Callable[[Node], None],
) -> None:
    for node in registry_nodes:
        registry_gc.collect([node], grace=0)
    client, node = registry_at(registry_nodes[0]), registry_nodes[-1]
    kept = Image.random(1_000_000)
    client.push("full", "still-kept", kept)
    name = f"{registry_host}/full/by-docker:1"
    logged_in(node)
    # docker sends a layer in chunks, without its length.
    layer = "head -c 100000000 /dev/urandom >/root/layer/big && tar -C /root/layer -c big | docker import - "
    node.succeed(f"mkdir -p /root/layer && {layer} {name} && rm -r /root/layer", timeout=120)
    with small_disk(registry_nodes, 64):
        cluster.wait_converged()
        said = node.fail(f"docker push {name}", timeout=180)
        assert "disk of the registry is full" in said
        for each in registry_nodes:
            assert registry_at(each).pull("full", "still-kept") == kept
            each.fail("find /var/lib/docker-registry -path '*/_uploads/*' -size +1M | grep .")
        # The space is free once docker-registry has closed the file.
        cluster.until(
            "room for a small image",
            lambda: client.push("full", "small", Image.random(1_000_000)),
            timeout=10,
            retry_on=(RegistryError,),
        )
    node.succeed(f"docker rmi {name} && docker logout {registry_host}")
    cluster.wait_converged()


# -- garbage ---------------------------------------------------------------------------------------------------


def test_garbage_goes_and_what_is_needed_stays(
    cluster: Cluster, registry_nodes: list[Node], registry_at: At, client: RegistryClient
) -> None:
    shared = Image.random(50_000)
    garbage = Image.random(500_000)
    client.push("garbage", "kept", shared)
    client.push("garbage", "gone", garbage)
    assert client.ask("DELETE", f"/v2/garbage/manifests/{garbage.digest}").status_code == 202

    def probe() -> None:
        freed = registry_gc.collect(registry_nodes, grace=0)
        assert not [each.problem for each in freed if each.problem]
        left = [digest for digest in garbage.blobs if client.ask("HEAD", f"/v2/garbage/blobs/{digest}").ok]
        if left:
            raise NotYet(f"{left} are there")

    first = registry_gc.collect(registry_nodes, grace=3600)
    assert all(each.kept > 0 and not each.blobs for each in first if each.node == cluster.registry_leader().name)
    cluster.until("the garbage to go", probe, timeout=10)
    for node in registry_nodes:
        assert registry_at(node).pull("garbage", "kept") == shared
    client.push("garbage", "gone", garbage)
    for node in registry_nodes:
        assert registry_at(node).pull("garbage", "gone") == garbage


@pytest.mark.needs_servers(3)
def test_pushes_go_on_while_garbage_is_collected(
    registry_nodes: list[Node], clients: list[RegistryClient], client: RegistryClient
) -> None:
    repository, root = "collected", "/var/lib/docker-registry/docker/registry/v2"
    others_repository = "collected-by-others"
    images = {f"again-{number}": Image.random(20_000, layers=2) for number in range(8)}

    def push(tag: str) -> None:
        # A blob that was garbage when the client asked for it may be removed before it is used; then it is sent again.
        registry_nodes[0].until(
            f"{tag} to be taken",
            lambda: client.push(repository, tag, images[tag]),
            timeout=20,
            retry_on=(RegistryError,),
        )

    def make_garbage() -> None:
        for image in images.values():
            assert client.ask("DELETE", f"/v2/{repository}/manifests/{image.digest}").status_code == 202
        digests = [digest[7:] for image in images.values() for digest in (image.digest, *image.blobs)]
        paths = [f"{root}/repositories/{repository}", *(f"{root}/blobs/sha256/{each[:2]}/{each}" for each in digests)]
        for node in registry_nodes:
            # A node that wasn't needed for the majority gets its copy after the answer.
            node.wait_until_succeeds(f"find {' '.join(paths)} -exec touch --date='2 hours ago' {{}} +")

    for tag in images:
        push(tag)
    freed = 0
    with Pushing(clients, others_repository) as others, Pool(4) as pool:
        for _ in range(3):
            make_garbage()
            # Push again exactly what is about to be collected.
            collecting = pool.submit(registry_gc.collect, registry_nodes)
            pool.map(push, images)
            (collected,) = pool.results([collecting])
            assert not [each.problem for each in collected if each.problem]
            freed += sum(each.blobs for each in collected)
            for node in registry_nodes:
                check_disk(node, images.values())
        make_garbage()
        freed += sum(each.blobs for each in registry_gc.collect(registry_nodes))
    assert freed >= len(images) * 4 * len(registry_nodes)
    assert others.improper == []
    assert others.acknowledged
    for each in others.acknowledged:
        for each_client in clients:
            assert each_client.pull(others_repository, each.tag) == each.image
