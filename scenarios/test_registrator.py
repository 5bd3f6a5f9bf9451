"""Containers are announced in consul, each under the name, address, tags and checks that it asks for."""

import pytest

from fixtures.containers import DockerRun
from fixtures.registrator import SOON, Announced, StartRegistrator
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.dns_client import ask
from swarmer.wait import NotYet, until

WEB = "-p 8080:80"


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """The node that the containers of a scenario run on."""
    return cluster.nodes[-1]


def until_answer(asked: Node, name: str, records: tuple[str, ...]) -> None:
    """Wait until a node answers a name with these records."""

    def probe() -> None:
        answer = ask(asked.ip, name)
        if answer.records != records:
            raise NotYet(f"{answer.code} {answer.records}")

    until(f"{name} to be {records or 'gone'} at {asked.name}", probe, timeout=SOON, interval=0.05)


# -- ports and addresses -----------------------------------------------------------------------------------


def test_a_container_is_found_by_its_name_from_start_to_end(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name shop {WEB} -e SERVICE_NAME=shop")
    service = announced.wait(node, f"{node.name}:shop:80")
    assert (service["Service"], service["Address"], service["Port"]) == ("shop", str(node.ip), 8080)
    name = f"shop.service.{cluster.spec.domain}"
    for asked in cluster.nodes:
        until_answer(asked, name, (str(node.ip),))
    node.succeed("docker stop --time 0 shop")
    announced.wait_gone(node, f"{node.name}:shop:80")
    for asked in cluster.nodes:
        until_answer(asked, name, ())


def test_only_published_ports_are_announced(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(node, "--name none --expose 80")
    run_container(node, f"--name one --expose 443 {WEB}")
    assert announced.wait(node, f"{node.name}:one:80")["Service"] == "busybox"
    assert set(announced.on(node)) == {f"{node.name}:one:80"}


def test_with_internal_ports_are_announced_where_the_container_is(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name one --expose 443 {WEB}")
    by = start_registrator(node, "-internal")
    announced.wait(node, f"{by}:one:443", by=by)
    inside = node.succeed("docker inspect --format '{{.NetworkSettings.IPAddress}}' one").strip()
    found = {key: (one["Address"], one["Port"]) for key, one in announced.on(node, by=by).items()}
    assert found == {f"{by}:one:80": (inside, 80), f"{by}:one:443": (inside, 443)}


def test_a_port_published_on_one_address_is_announced_there(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    node.succeed("ip address add 10.99.99.1/32 dev host0")
    try:
        run_container(node, "--name one -p 10.99.99.1:8080:80")
        service = announced.wait(node, f"{node.name}:one:80")
        assert (service["Address"], service["Port"]) == ("10.99.99.1", 8080)
    finally:
        node.succeed("docker rm -f one; ip address del 10.99.99.1/32 dev host0")


def test_of_several_bindings_of_a_port_dockers_first_counts(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, "--name both -p 8081:80 -p 8082:80 -p 8083:80")
    service = announced.wait(node, f"{node.name}:both:80")
    shown = '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}'
    assert service["Port"] == int(node.succeed(f"docker inspect --format '{shown}' both"))
    assert set(announced.on(node)) == {f"{node.name}:both:80"}


def test_a_port_of_the_loopback_is_not_announced_to_others(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, "--name local -p 127.0.0.1:8081:80")
    run_container(node, f"--name web {WEB}")
    announced.wait(node, f"{node.name}:web:80")
    assert f"{node.name}:local:80" not in announced.on(node)


def test_a_container_on_the_hosts_network_has_the_hosts_address(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, "--name direct --network host --expose 8082", "httpd -f -p 8082")
    service = announced.wait(node, f"{node.name}:direct:8082")
    assert (service["Address"], service["Port"]) == (str(node.ip), 8082)


def test_the_address_is_that_of_the_option_and_of_a_label(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name labelled {WEB} --label where=10.1.2.3/24")
    run_container(node, "--name plain -p 8081:80")
    by = start_registrator(node, "-ip 203.0.113.9 -useIpFromLabel where")
    assert announced.wait(node, f"{by}:labelled:80", by=by)["Address"] == "10.1.2.3"
    assert announced.wait(node, f"{by}:plain:80", by=by)["Address"] == "203.0.113.9"


def test_a_container_in_anothers_network_has_the_others_address(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, "--name pod")
    # `docker run` refuses --expose here; an image may say so all the same.
    node.succeed("docker commit --change 'EXPOSE 80' pod busybox:exposing")
    try:
        run_container(node, "--name beside --network container:pod", image="busybox:exposing")
        inside = node.succeed("docker inspect --format '{{.NetworkSettings.IPAddress}}' pod").strip()
        service = announced.wait(node, f"{node.name}:beside:80")
        assert (service["Address"], service["Port"]) == (inside, 80)
    finally:
        node.succeed("docker rm -f beside; docker rmi busybox:exposing")


def test_in_a_network_of_its_own_a_container_has_its_address_there(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    node.succeed("docker network create back")
    try:
        run_container(node, f"--name web --network back {WEB}")
        by = start_registrator(node, "-internal")
        inside = node.succeed("docker inspect --format '{{.NetworkSettings.Networks.back.IPAddress}}' web").strip()
        assert announced.wait(node, f"{by}:web:80", by=by)["Address"] == inside
        assert announced.wait(node, f"{node.name}:web:80")["Address"] == str(node.ip)
    finally:
        node.succeed("docker rm -f web; docker network rm back")


# -- names, IDs, tags, metadata ----------------------------------------------------------------------------


def test_several_ports_have_names_with_their_port(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(
        node,
        f"--name many {WEB} -p 8443:443 -p 8053:53/udp -p 8025:25 -e SERVICE_443_NAME=tls -e SERVICE_25_IGNORE=yes",
    )
    announced.wait(node, f"{node.name}:many:53:udp")
    assert {key: (one["Service"], one["Tags"]) for key, one in announced.on(node).items()} == {
        f"{node.name}:many:80": ("busybox-80", []),
        f"{node.name}:many:443": ("tls", []),
        f"{node.name}:many:53:udp": ("busybox-53", ["udp"]),
    }


def test_with_explicit_only_what_has_a_name_is_announced(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name nameless {WEB}")
    run_container(node, "--name named -p 8081:80 -e SERVICE_NAME=shop")
    by = start_registrator(node, "-explicit")
    announced.wait(node, f"{by}:named:80", by=by)
    assert set(announced.on(node, by=by)) == {f"{by}:named:80"}


def test_what_is_to_be_ignored_is(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(node, f"--name hidden {WEB} --label SERVICE_IGNORE=1")
    run_container(node, "--name shown -p 8081:80")
    announced.wait(node, f"{node.name}:shown:80")
    assert set(announced.on(node)) == {f"{node.name}:shown:80"}


def test_labels_win_over_the_environment_and_the_port_over_the_container(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(
        node,
        f"--name web {WEB} -e SERVICE_REGION=env --label SERVICE_REGION=label -e SERVICE_80_ZONE=port "
        r"-e SERVICE_Zone=all -e SERVICE_TAGS='blue,a\,b' --label SERVICE_ID=mine",
    )
    service = announced.wait(node, "mine")
    meta = {key: value for key, value in service["Meta"].items() if not key.startswith("registrator")}
    assert meta == {"region": "label", "zone": "port"}
    assert service["Tags"] == ["blue", "a,b"]


def test_tags_of_the_option_are_given_to_all(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name web {WEB} -e SERVICE_TAGS=blue")
    by = start_registrator(node, "-tags everywhere,blue")
    assert announced.wait(node, f"{by}:web:80", by=by)["Tags"] == ["blue", "everywhere"]


def test_labels_of_compose_and_others_are_neither_tags_nor_metadata(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(
        node,
        f"--name p-x-1 {WEB} --label com.docker.compose.project=p --label com.docker.compose.service=x "
        "--label com.docker.compose.oneoff=False --label maintainer=me -e PASSWORD=hunter2",
    )
    service = announced.wait(node, f"{node.name}:p-x-1:80")
    assert service["Service"] == "busybox"
    assert service["Tags"] == []
    assert set(service["Meta"]) == {"registrator", "registrator-container"}


def test_an_image_without_a_name_lends_the_container_its_own(
    node: Node, announced: Announced, run_container: DockerRun, busybox_image: str
) -> None:
    identity = node.succeed(f"docker inspect --format '{{{{.Id}}}}' {busybox_image}").strip()
    run_container(node, f"--name unnamed {WEB}", image=identity)
    run_container(node, "--name shortened -p 8081:80", image=identity.removeprefix("sha256:")[:12])
    assert announced.wait(node, f"{node.name}:unnamed:80")["Service"] == "unnamed"
    assert announced.wait(node, f"{node.name}:shortened:80")["Service"] == "shortened"


def test_an_image_by_its_digest_has_its_name_alone(
    node: Node, announced: Announced, run_container: DockerRun, busybox_image: str
) -> None:
    config = "{version: 0.1, storage: {filesystem: {rootdirectory: /tmp/probe}}, http: {addr: '127.0.0.1:5999'}}"
    node.succeed("cat > /run/probe-registry.yml", input=config)
    node.succeed("systemd-run --quiet --collect --unit=probe-registry docker-registry serve /run/probe-registry.yml")
    name = "127.0.0.1:5999/team/site"
    try:
        node.succeed(f"docker tag {busybox_image} {name}:1.2")
        node.wait_until_succeeds(f"docker push --quiet {name}:1.2")
        digest = node.succeed(f"docker inspect --format '{{{{index .RepoDigests 0}}}}' {name}:1.2").strip()
        assert digest.startswith(f"{name}@sha256:")
        run_container(node, f"--name by-digest {WEB}", image=digest)
        assert announced.wait(node, f"{node.name}:by-digest:80")["Service"] == "site"
    finally:
        node.succeed(f"docker rm -f by-digest; docker rmi {name}:1.2")
        node.succeed("systemctl stop probe-registry; rm -rf /tmp/probe /run/probe-registry.yml")


def test_a_renamed_container_is_announced_under_its_new_name_alone(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name before {WEB}")
    announced.wait(node, f"{node.name}:before:80")
    node.succeed("docker rename before after")
    announced.wait(node, f"{node.name}:after:80")
    assert set(announced.on(node)) == {f"{node.name}:after:80"}


def test_names_of_the_clusters_own_services_are_not_to_be_had(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name impostor {WEB} -e SERVICE_NAME=consul")
    run_container(node, "--name web -p 8081:80")
    announced.wait(node, f"{node.name}:web:80")
    assert set(announced.on(node)) == {f"{node.name}:web:80"}
    _, entries = cluster.consul.catalog.service("consul", consistency="consistent")
    assert {entry["ServicePort"] for entry in entries} == {8300}


# -- checks ------------------------------------------------------------------------------------------------


def test_a_port_that_answers_passes_its_http_check(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(
        node,
        f"--name web {WEB} -e SERVICE_NAME=checked -e SERVICE_CHECK_HTTP=/ok -e SERVICE_CHECK_INTERVAL=300ms "
        "-e SERVICE_CHECK_TIMEOUT=1s",
        "sh -c 'mkdir /www; httpd -h /www; exec sleep 1000000'",
    )
    check = f"service:{node.name}:web:80"
    announced.wait_status(node, check, "critical")
    assert ask(node.ip, f"checked.service.{cluster.spec.domain}").records == ()
    node.succeed("docker exec web touch /www/ok")
    announced.wait_status(node, check, "passing")
    until_answer(node, f"checked.service.{cluster.spec.domain}", (str(node.ip),))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ("-e SERVICE_CHECK_TCP=true", "tcp"),
        ("-e SERVICE_CHECK_TTL=30s", "ttl"),
        ("-e SERVICE_CHECK_GRPC=true", "grpc"),
        ("-e SERVICE_CHECK_HTTPS=/ -e SERVICE_CHECK_HTTPS_METHOD=HEAD -e SERVICE_CHECK_TLS_SKIP_VERIFY=true", "http"),
        ("-e SERVICE_CHECK_HTTP=/ -e SERVICE_CHECK_TCP=true", "http"),
    ],
)
def test_the_check_is_of_the_kind_that_is_asked_for(
    node: Node, announced: Announced, run_container: DockerRun, options: str, kind: str
) -> None:
    run_container(node, f"--name web {WEB} {options} -e SERVICE_CHECK_INITIAL_STATUS=passing", "httpd -f")
    announced.wait(node, f"{node.name}:web:80")
    check = announced.checks(node, f"{node.name}:web:80")[f"service:{node.name}:web:80"]
    assert check["Type"] == kind
    if kind in ("tcp", "ttl"):
        assert check["Status"] == "passing"


def test_a_command_is_run_in_the_container(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(node, f"--name web {WEB} -e SERVICE_CHECK_CMD='test -e /ready' -e SERVICE_CHECK_INTERVAL=200ms")
    announced.wait_status(node, f"service:{node.name}:web:80", "warning")
    node.succeed("docker exec web touch /ready")
    announced.wait_status(node, f"service:{node.name}:web:80", "passing")


def test_a_script_is_run_on_the_node_without_rights(node: Node, announced: Announced, run_container: DockerRun) -> None:
    script = 'test "$(id -u)" = 65534 && nc -z $SERVICE_IP $SERVICE_PORT || exit 2'
    run_container(
        node, f"--name web {WEB} -e SERVICE_CHECK_SCRIPT='{script}' -e SERVICE_CHECK_INTERVAL=200ms", "httpd -f"
    )
    announced.wait_status(node, f"service:{node.name}:web:80", "passing")


def test_the_containers_own_healthcheck_is_followed(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(
        node,
        f"--name web {WEB} -e SERVICE_NAME=healthy "
        "--health-cmd='test -e /ok' --health-interval=300ms --health-retries=1",
    )
    check, name = f"healthcheck:{node.name}:web:80", f"healthy.service.{cluster.spec.domain}"
    for ready, status, records in (
        ("rm -f", "critical", ()),
        ("touch", "passing", (str(node.ip),)),
        ("rm", "critical", ()),
        ("touch", "passing", (str(node.ip),)),
    ):
        node.succeed(f"docker exec web {ready} /ok")
        announced.wait_status(node, check, status)
        until_answer(node, name, records)


def test_the_beginning_of_a_check_and_of_another_follow_the_container(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name web {WEB} -e SERVICE_CHECK_TCP=1")
    announced.wait(node, f"{node.name}:web:80")
    node.succeed("docker rm -f web")
    run_container(node, f"--name web {WEB}")

    def probe() -> None:
        announced.wait(node, f"{node.name}:web:80")
        if checks := announced.checks(node, f"{node.name}:web:80"):
            raise NotYet(f"it still has {sorted(checks)}")

    until("the new container's service without a check", probe, timeout=SOON)
