"""Containers are announced in consul with the name, address, tags and metadata that they request."""

import ipaddress
import shlex

import pytest

from fixtures.containers import DockerRun
from fixtures.registrator import Announced, StartRegistrator, until_answer
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node

WEB = "-p 8080:80"


# -- ports and addresses -----------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_container_resolves_from_its_start_to_its_end(
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


def test_with_internal_ports_are_announced_at_the_address_of_the_container(
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
    node.succeed("ip address add 10.99.99.1/32 dev lo")
    try:
        run_container(node, "--name one -p 10.99.99.1:8080:80")
        service = announced.wait(node, f"{node.name}:one:80")
        assert (service["Address"], service["Port"]) == ("10.99.99.1", 8080)
    finally:
        node.succeed("docker rm -f one; ip address del 10.99.99.1/32 dev lo")


def test_the_first_of_several_bindings_of_a_port_is_announced(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, "--name both -p 8081:80 -p 8082:80 -p 8083:80")
    service = announced.wait(node, f"{node.name}:both:80")
    shown = '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}'
    assert service["Port"] == int(node.succeed(f"docker inspect --format '{shown}' both"))
    assert set(announced.on(node)) == {f"{node.name}:both:80"}


def test_a_port_of_the_loopback_is_not_announced(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(node, "--name local -p 127.0.0.1:8081:80")
    run_container(node, f"--name web {WEB}")
    announced.wait(node, f"{node.name}:web:80")
    assert f"{node.name}:local:80" not in announced.on(node)


def test_of_several_bindings_the_one_that_other_nodes_reach_is_announced(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    inner = ["127.0.0.1:8084", "172.17.0.1:8085"]
    for order in ([*inner, "8086"], ["8086", *inner]):
        run_container(node, f"--name both {' '.join(f'-p {address}:80' for address in order)}")
        service = announced.wait(node, f"{node.name}:both:80")
        assert (service["Address"], service["Port"]) == (str(node.ip), 8086), order
        node.succeed("docker rm -f both")
        announced.wait_gone(node, f"{node.name}:both:80")


def test_a_port_of_a_bridge_is_not_announced(node: Node, announced: Announced, run_container: DockerRun) -> None:
    node.succeed("docker network create back")
    try:
        config = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
        subnet = node.succeed(f"docker network inspect back --format '{config}'").strip()
        own = str(ipaddress.ip_network(subnet)[1])
        run_container(node, f"--name inner -p 172.17.0.1:8084:80 -p {own}:8085:81")
        run_container(node, f"--name web {WEB}")
        announced.wait(node, f"{node.name}:web:80")
        assert set(announced.on(node)) == {f"{node.name}:web:80"}
    finally:
        node.succeed("docker rm -f inner; docker network rm back")


def test_a_container_on_the_hosts_network_has_the_hosts_address(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, "--name direct --network host --expose 8082", "httpd -f -p 8082")
    service = announced.wait(node, f"{node.name}:direct:8082")
    assert (service["Address"], service["Port"]) == (str(node.ip), 8082)


def test_the_option_and_a_label_set_the_address(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name labelled {WEB} --label where=10.1.2.3/24")
    run_container(node, "--name plain -p 8081:80")
    by = start_registrator(node, "-ip 203.0.113.9 -useIpFromLabel where")
    assert announced.wait(node, f"{by}:labelled:80", by=by)["Address"] == "10.1.2.3"
    assert announced.wait(node, f"{by}:plain:80", by=by)["Address"] == "203.0.113.9"


def test_a_container_in_the_network_of_another_has_the_address_of_the_other(
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


def test_with_explicit_only_containers_with_a_name_are_announced(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name nameless {WEB}")
    run_container(node, "--name named -p 8081:80 -e SERVICE_NAME=shop")
    by = start_registrator(node, "-explicit")
    announced.wait(node, f"{by}:named:80", by=by)
    assert set(announced.on(node, by=by)) == {f"{by}:named:80"}


def test_an_ignored_container_is_not_announced(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(node, f"--name hidden {WEB} --label SERVICE_IGNORE=1")
    run_container(node, "--name shown -p 8081:80")
    announced.wait(node, f"{node.name}:shown:80")
    assert set(announced.on(node)) == {f"{node.name}:shown:80"}


def test_labels_take_precedence_over_the_environment_and_ports_over_containers(
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


def test_the_tags_of_the_option_are_on_all_services(
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


def test_with_an_image_without_a_name_the_service_is_named_after_the_container(
    node: Node, announced: Announced, run_container: DockerRun, busybox_image: str
) -> None:
    identity = node.succeed(f"docker inspect --format '{{{{.Id}}}}' {busybox_image}").strip()
    run_container(node, f"--name unnamed {WEB}", image=identity)
    run_container(node, "--name shortened -p 8081:80", image=identity.removeprefix("sha256:")[:12])
    assert announced.wait(node, f"{node.name}:unnamed:80")["Service"] == "unnamed"
    assert announced.wait(node, f"{node.name}:shortened:80")["Service"] == "shortened"


def test_a_digest_is_not_part_of_the_name(
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


def test_a_service_with_an_id_of_any_characters_is_taken_back(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    identities = ["shop", "shop#1", "shop?x=1", "team/shop", "team/", "a b+c&d=e;f", "é\"'\\~..."]
    for number, identity in enumerate(identities):
        run_container(node, f"--name id-{number} -p {8100 + number}:80 -e SERVICE_ID={shlex.quote(identity)}")
    announced.wait_exactly(node, set(identities))
    while identities:
        node.succeed(f"docker rm -f id-{len(identities) - 1}")
        del identities[-1]
        announced.wait_exactly(node, set(identities))


def test_a_check_by_a_command_passes_whatever_the_id(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name web {WEB} -e SERVICE_ID='run#2/a?b' -e SERVICE_CHECK_CMD=true")
    announced.wait_status(node, "service:run#2/a?b", "passing")


@pytest.mark.parametrize("identity", ["/team/shop", "team//shop", "team/../shop", "50%"])
def test_an_id_that_could_not_be_taken_back_is_refused_with_one_line(
    node: Node, announced: Announced, run_container: DockerRun, identity: str
) -> None:
    run_container(node, f"--name refused {WEB} -e SERVICE_ID={shlex.quote(identity)}")
    run_container(node, "--name web -p 8081:80")
    announced.wait_exactly(node, {f"{node.name}:web:80"})
    log = node.succeed("journalctl --unit swarmer-registrator --output cat --grep 'set another SERVICE_ID'")
    assert len([line for line in log.splitlines() if f" {identity} is not registered" in line]) == 1


def test_the_default_name_resolves_and_a_given_one_that_does_not_is_logged(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun, busybox_image: str
) -> None:
    node.succeed(f"docker tag {busybox_image} team/my.app:1")
    try:
        run_container(node, f"--name dotted {WEB}", image="team/my.app:1")
        run_container(node, "--name capital -p 8081:80 -e SERVICE_NAME=Web_2")
        run_container(node, "--name odd -p 8082:80 -e SERVICE_NAME=a@b")
        assert announced.wait(node, f"{node.name}:odd:80")["Service"] == "a@b"
        for name in ("my-app", "Web_2", "web_2"):
            until_answer(node, f"{name}.service.{cluster.spec.domain}", (str(node.ip),))
        log = node.succeed('journalctl --unit swarmer-registrator --output cat --grep "doesn\'t resolve by DNS"')
        assert {"a@b", "Web_2", "my-app"} & {line.split()[1] for line in log.splitlines()} == {"a@b"}
    finally:
        node.succeed("docker rm -f dotted; docker rmi team/my.app:1")


def test_a_renamed_container_is_announced_under_its_new_name_alone(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name before {WEB}")
    announced.wait(node, f"{node.name}:before:80")
    node.succeed("docker rename before after")
    announced.wait(node, f"{node.name}:after:80")
    assert set(announced.on(node)) == {f"{node.name}:after:80"}


def test_containers_can_not_use_the_names_of_the_clusters_own_services(
    cluster: Cluster, node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(node, f"--name impostor {WEB} -e SERVICE_NAME=consul")
    run_container(node, "--name web -p 8081:80")
    announced.wait(node, f"{node.name}:web:80")
    assert set(announced.on(node)) == {f"{node.name}:web:80"}
    _, entries = cluster.consul.catalog.service("consul", consistency="consistent")
    assert {entry["ServicePort"] for entry in entries} == {8300}
