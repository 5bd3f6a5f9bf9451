"""The registry lets in whom it should, says no in the words of the distribution spec, and bounds what it takes."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import requests

from swarmer import registry_client, registry_gc
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.ports import REGISTRY
from swarmer.registry_client import Image, RegistryClient, RegistryError, codes, digest_of
from swarmer.wait import NotYet, until

At = Callable[[Node], RegistryClient]

NO_DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def client(registry_leader: Node, registry_at: At) -> RegistryClient:
    """A client that may push, of the node that leads."""
    return registry_at(registry_leader)


@pytest.fixture
def nobody(cluster: Cluster, registry_leader: Node) -> RegistryClient:
    """A client that shows nothing of itself."""
    return RegistryClient(cluster, registry_leader.ip, certificate=None)


def error_of(answer: requests.Response) -> tuple[int, list[str]]:
    """Status and codes of an error in the form of the spec."""
    assert answer.headers["Content-Type"].startswith("application/json"), answer.text
    assert all(error["message"] for error in answer.json()["errors"])
    return answer.status_code, codes(answer)


@contextmanager
def begun_upload(
    client: RegistryClient, location: str, content: bytes = b"begin", *, length: int = 1000
) -> Iterator[ssl.SSLSocket]:
    """A connection on which only a part of an upload was sent; it is cut off in the end."""
    certificate = client.session.cert
    assert isinstance(certificate, tuple)
    context = ssl.create_default_context(cafile=str(client.session.verify))
    context.load_cert_chain(*certificate)
    address = (str(client.address), REGISTRY.number)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as connection,
    ):
        target = requests.Request("PATCH", client.url(location)).prepare().path_url
        head = f"PATCH {target} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + content)
        yield connection


def test_the_catalog_of_a_new_cluster_is_empty(cluster: Cluster, registry_at: At) -> None:
    for node in cluster.nodes:
        node.power_off()
    for node in cluster.nodes:
        cluster.replace(node)
    for node in cluster.nodes:
        node.wait_booted()
    cluster.wait_converged()
    for node in cluster.registry_nodes:
        assert registry_at(node).get("/v2/_catalog").text.strip() == '{"repositories":[]}'


# -- TLS and names ---------------------------------------------------------------------------------------------


def test_the_name_leads_to_every_healthy_node_and_its_certificate_is_of_the_cluster(
    nodes: list[Node], cluster: Cluster, registry_nodes: list[Node], registry_host: str
) -> None:
    name = registry_host.partition(":")[0]
    context = ssl.create_default_context(cafile=registry_client.trust_file(cluster))
    for node in nodes:
        assert set(registry_client.addresses(cluster, node)) == {each.ip for each in registry_nodes}
    for node in registry_nodes:
        with socket.create_connection((str(node.ip), REGISTRY.number), timeout=5) as plain:
            for host in (name, f"{node.name}.node.{cluster.spec.domain}"):
                with context.wrap_socket(plain.dup(), server_hostname=host) as connection:
                    assert connection.version() in ("TLSv1.2", "TLSv1.3")
                break


def test_without_tls_nothing_is_answered(registry_leader: Node) -> None:
    answer = requests.get(f"http://{registry_leader.ip}:{REGISTRY.number}/v2/", timeout=5)
    assert answer.status_code == 400


def test_docker_needs_no_insecure_registries(nodes: list[Node]) -> None:
    for node in nodes:
        registries = json.loads(node.succeed("docker info --format '{{json .RegistryConfig}}'"))
        assert registries["InsecureRegistryCIDRs"] == ["127.0.0.0/8"]  # docker's own
        assert not [name for name, index in registries["IndexConfigs"].items() if not index["Secure"]]


def test_consul_asks_the_registry_over_https(cluster: Cluster, registry_nodes: list[Node]) -> None:
    _, entries = cluster.consul.health.service("registry")
    assert {entry["Node"]["Node"] for entry in entries} == {node.name for node in registry_nodes}

    def probe() -> None:
        checks = [check for node in registry_nodes for check in node.consul.agent.checks().values()]
        said = [check["Output"] for check in checks if check["CheckID"] == "registry"]
        wanted = [f"HTTP GET https://{node.ip}:{REGISTRY.number}/health: 200 OK" for node in registry_nodes]
        if not all(output.startswith(begin) for output, begin in zip(said, wanted, strict=True)):
            raise NotYet(str(said))

    until("the checks to be made", probe, timeout=5)


def test_the_content_on_a_node_is_closed_to_its_containers(registry_nodes: list[Node], busybox_image: str) -> None:
    for node in registry_nodes:
        assert "docker-registry" not in node.succeed("ss -Hlntp")
        node.fail(f"docker run --rm --network host {busybox_image} wget -qO- http://127.0.0.1:5000/v2/_catalog")


# -- who may what ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/any/tags/list"),
        ("GET", "/v2/any/manifests/1"),
        ("HEAD", f"/v2/any/blobs/{NO_DIGEST}"),
        ("POST", "/v2/any/blobs/uploads/"),
        ("PUT", "/v2/any/manifests/1"),
        ("DELETE", "/v2/any/manifests/1"),
        ("GET", "/token"),
    ],
)
def test_the_anonymous_get_401_and_where_to_get_a_token(nobody: RegistryClient, method: str, path: str) -> None:
    answer = nobody.ask(method, path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith(f'Bearer realm="{nobody.url("/token")}",service="registry.')
    if method != "HEAD":
        assert error_of(answer) == (401, ["UNAUTHORIZED"])


@pytest.mark.parametrize("authorization", ["Basic c3dhcm1lcjp3cm9uZw==", "Bearer a.b", "Bearer x", "Basic !", "Odd x"])
def test_wrong_credentials_are_refused_also_beside_a_good_certificate(
    nobody: RegistryClient, client: RegistryClient, authorization: str
) -> None:
    for each in (nobody, client):
        answer = each.get("/v2/_catalog", headers={"Authorization": authorization})
        assert error_of(answer) == (401, ["UNAUTHORIZED"])


def test_certificates_of_other_planes_open_nothing(cluster: Cluster, registry_leader: Node) -> None:
    folder = cluster.home.folder
    for pair in (("client.pem", "client-key.pem"), ("docker/cert.pem", "docker/key.pem")):
        stranger = RegistryClient(
            cluster, registry_leader.ip, certificate=(str(folder / pair[0]), str(folder / pair[1]))
        )
        assert stranger.get("/v2/_catalog").status_code == 401


def test_a_node_may_pull_and_not_push(
    nodes: list[Node], client: RegistryClient, registry_host: str, busybox_image: str
) -> None:
    image = Image.random()
    client.push("for-nodes", "1", image)
    for node in nodes:
        curl = "curl -s --cacert ca.crt --cert client.cert --key client.key -o /dev/null -w '%{http_code}'"
        at = f"cd /etc/docker/certs.d/{registry_host} && {curl} https://{registry_host}/v2"
        assert node.succeed(f"{at}/for-nodes/manifests/1") == "200"
        assert node.succeed(f"{at}/for-nodes/blobs/uploads/ -X POST") == "403"
        assert node.succeed(f"{at}/for-nodes/manifests/1 -X DELETE") == "403"
        assert node.succeed(
            f"cd /etc/docker/certs.d/{registry_host} && {curl} https://{registry_host}/peer/copy -X POST"
        )
        pushed = f"{registry_host}/not-by-nodes"
        said = node.fail(f"docker tag {busybox_image} {pushed} && docker push {pushed}")
        assert "denied" in said


def test_the_key_of_a_node_is_not_readable_to_others(nodes: list[Node], registry_host: str) -> None:
    for node in nodes:
        assert node.succeed(f"stat -c %a /etc/docker/certs.d/{registry_host}/client.key").strip() == "600"


def test_who_logs_in_may_push(
    nodes: list[Node], registry_host: str, busybox_image: str, logged_in: Callable[[Node], None]
) -> None:
    name = f"{registry_host}/by/docker:1"
    node = nodes[-1]
    node.fail(f"docker login --username swarmer --password wrong {registry_host}")
    logged_in(node)
    node.succeed(f"docker tag {busybox_image} {name} && docker push {name} && docker logout {registry_host}")
    for other in nodes:
        other.succeed(f"docker rmi --force {name}; docker pull {name}")


def test_skopeo_copies_and_looks(
    nodes: list[Node], registry_host: str, busybox_image: str, logged_in: Callable[[Node], None], client: RegistryClient
) -> None:
    node, name = nodes[0], f"docker://{registry_host}/by/skopeo"
    logged_in(node)
    copy = "skopeo --insecure-policy copy --authfile /root/.docker/config.json"
    node.succeed(f"{copy} docker-daemon:{busybox_image} {name}:1 && {copy} {name}:1 {name}:2")
    node.succeed(f"{copy} --format oci {name}:1 {name}:oci && docker logout {registry_host}")
    inspected = json.loads(node.succeed(f"skopeo inspect {name}:1"))
    assert sorted(inspected["RepoTags"]) == ["1", "2", "oci"]
    assert inspected["Digest"] == client.digest("by/skopeo", "2")
    for other in nodes:
        other.succeed(f"docker pull {registry_host}/by/skopeo:oci")


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
        (b" " * 4_200_000, (400, ["MANIFEST_INVALID"])),
        (b" " * 5_000_000, (413, ["SIZE_INVALID"])),
    ],
)
def test_what_is_no_manifest_is_refused(client: RegistryClient, content: bytes, error: tuple[int, list[str]]) -> None:
    headers = {"Content-Type": registry_client.MANIFEST}
    answer = client.ask("PUT", "/v2/errors/manifests/1", data=content, headers=headers)
    assert error_of(answer) in (error, (413, ["SIZE_INVALID"]))


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


# -- bounds ----------------------------------------------------------------------------------------------------


def test_the_number_of_uploads_at_once_is_bounded(client: RegistryClient) -> None:
    bound = 64
    refused: dict[int, str] = {}
    locations = [client.ask("POST", "/v2/many/blobs/uploads/").headers["Location"] for _ in range(bound + 6)]
    with ExitStack() as stack:
        begun = [stack.enter_context(begun_upload(client, location)) for location in locations]

        def probe() -> None:
            # Those that are let in wait for the rest of the content; the others are told at once.
            for number, connection in enumerate(begun):
                connection.setblocking(False)
                with suppress(ssl.SSLWantReadError):
                    refused.setdefault(number, connection.recv(65536).decode())
            if len(refused) < 6:
                raise NotYet(f"{len(refused)} are refused")

        until("what is beyond the bound to be refused", probe, timeout=10)
    assert len(refused) == 6
    assert all(answer.startswith("HTTP/1.1 429 ") and "TOOMANYREQUESTS" in answer for answer in refused.values())
    until(
        "uploads to be taken again",
        lambda: client.push("many", "1", Image.random()),
        timeout=10,
        pardon=(RegistryError,),
    )


@contextmanager
def small_disk(nodes: list[Node], size: int) -> Iterator[None]:
    """Registry nodes whose disk for content holds only so many MiB, with a copy of what is there."""
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
        assert {(error.status, tuple(error.codes)) for error in errors} == {(507, ("DENIED",))}
        assert all("disk of the registry is full" in str(error) for error in errors)
        for node in registry_nodes:
            assert registry_at(node).pull("full", "kept") == kept
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
    until("the garbage to go", probe, timeout=10)
    for node in registry_nodes:
        assert registry_at(node).pull("garbage", "kept") == shared
    client.push("garbage", "gone", garbage)
    for node in registry_nodes:
        assert registry_at(node).pull("garbage", "gone") == garbage
