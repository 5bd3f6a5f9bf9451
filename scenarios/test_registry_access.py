"""The registry is found by its name, is trusted, and grants each client its rights."""

import itertools
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

import pytest
import requests

from fixtures.registry import error_of
from swarmer.clients import direct, registry_client
from swarmer.clients.registry_client import Image, RegistryClient
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.ports import REGISTRY
from swarmer.secrets.client_files import Plane
from swarmer.wait import NotYet

At = Callable[[Node], RegistryClient]

NO_DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def anonymous(cluster: Cluster, registry_leader: Node) -> RegistryClient:
    """A client without a certificate or other credentials."""
    return RegistryClient(cluster, registry_leader.ip, certificate=None)


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
        for host in (name, f"{node.name}.node.{cluster.spec.domain}"):
            with (
                socket.create_connection((str(node.ip), REGISTRY.number), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=host) as connection,
            ):
                assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_without_tls_nothing_is_answered(registry_leader: Node) -> None:
    with direct.session() as session:
        answer = session.get(f"http://{registry_leader.ip}:{REGISTRY.number}/v2/", timeout=5)
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

    cluster.until("the checks to be made", probe, timeout=5)


def test_the_content_on_a_node_is_closed_to_its_containers(registry_nodes: list[Node], busybox_image: str) -> None:
    for node in registry_nodes:
        assert "docker-registry" not in node.succeed("ss -Hlntp")
        node.fail(f"docker run --rm --network host {busybox_image} wget -qO- http://127.0.0.1:5000/v2/_catalog")


# -- who may what ----------------------------------------------------------------------------------------------


@pytest.mark.smoke
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
def test_the_anonymous_get_401_and_where_to_get_a_token(anonymous: RegistryClient, method: str, path: str) -> None:
    answer = anonymous.ask(method, path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith(f'Bearer realm="{anonymous.url("/token")}",service="registry.')
    if method != "HEAD":
        assert error_of(answer) == (401, ["UNAUTHORIZED"])


@pytest.mark.parametrize("authorization", ["Basic c3dhcm1lcjp3cm9uZw==", "Bearer a.b", "Bearer x", "Basic !", "Odd x"])
def test_wrong_credentials_are_refused_also_beside_a_good_certificate(
    anonymous: RegistryClient, client: RegistryClient, authorization: str
) -> None:
    for each in (anonymous, client):
        answer = each.get("/v2/_catalog", headers={"Authorization": authorization})
        assert error_of(answer) == (401, ["UNAUTHORIZED"])


def test_certificates_of_other_planes_open_nothing(cluster: Cluster, registry_leader: Node) -> None:
    for plane in (Plane.CONSUL, Plane.DOCKER):
        files = cluster.home.client(plane)
        stranger = RegistryClient(cluster, registry_leader.ip, certificate=(str(files.certificate), str(files.key)))
        assert stranger.get("/v2/_catalog").status_code == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_no_request_is_let_in_as_the_end_of_another(
    anonymous: RegistryClient, client: RegistryClient, method: str, in_chunks: bool
) -> None:
    image = Image.random()
    client.push("let-in", "1", image)
    deletion = b"DELETE /v2/let-in/manifests/1 HTTP/1.1\r\nHost: any\r\nContent-Length: 0\r\n\r\n"
    # swarmer-registry accepts no body larger than a manifest may be.
    bodies = (deletion, bytes((4 << 20) + 1) + deletion)
    for path, body in itertools.product(("/health", "/token"), bodies):
        with suppress(requests.ConnectionError):
            anonymous.ask(method, path, data=iter([body]) if in_chunks else body)
    # By the end of another push, a request that was let in would have been answered.
    client.push("let-in", "2", Image.random())
    assert client.digest("let-in", "1") == image.digest


def test_a_token_gets_no_other_token(anonymous: RegistryClient, client: RegistryClient) -> None:
    token_header = {"Authorization": f"Bearer {client.get('/token').json()['token']}"}
    assert anonymous.get("/v2/_catalog", headers=token_header).status_code == 200
    assert error_of(anonymous.get("/token", headers=token_header)) == (401, ["UNAUTHORIZED"])


def test_a_password_in_a_form_is_not_overlooked(client: RegistryClient, anonymous: RegistryClient) -> None:
    """By this error, containerd and its like send the password in a header instead."""
    form = {"grant_type": "password", "service": "any", "client_id": "any", "username": "swarmer", "password": "wrong"}
    for each in (client, anonymous):
        answer = each.ask("POST", "/token", data=form)
        assert error_of(answer) == (405, ["UNSUPPORTED"])
        assert answer.headers["Allow"] == "GET"


def test_a_node_may_pull_and_not_push(
    nodes: list[Node],
    registry_nodes: list[Node],
    client: RegistryClient,
    registry_host: str,
    busybox_image: str,
) -> None:
    image = Image.random()
    client.push("for-nodes", "1", image)
    for node in nodes:
        curl = "curl -s --cacert ca.crt --cert client.cert --key client.key -o /dev/null -w '%{http_code}'"
        at = f"cd /etc/docker/certs.d/{registry_host} && {curl} https://{registry_host}/v2"
        assert node.succeed(f"{at}/for-nodes/manifests/1") == "200"
        assert node.succeed(f"{at}/for-nodes/blobs/uploads/ -X POST") == "401"
        assert node.succeed(f"{at}/for-nodes/manifests/1 -X DELETE") == "401"
        if node not in registry_nodes:
            copy = f"cd /etc/docker/certs.d/{registry_host} && {curl} https://{registry_host}/peer/copy -X POST"
            assert node.succeed(copy) == "403"
        pushed = f"{registry_host}/not-by-nodes"
        said = node.fail(f"docker tag {busybox_image} {pushed} && docker push {pushed}")
        assert "denied" in said


def test_the_key_of_a_node_is_not_readable_to_others(nodes: list[Node], registry_host: str) -> None:
    for node in nodes:
        assert node.succeed(f"stat -c %a /etc/docker/certs.d/{registry_host}/client.key").strip() == "600"


@pytest.mark.smoke
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
