"""A service resolves while its checks pass: those it requests, and the HEALTHCHECK of its container."""

import pytest

from fixtures.containers import DockerRun
from fixtures.registrator import SOON, Announced, until_answer
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.wait import NotYet

WEB = "-p 8080:80"


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
    assert node.ask(f"checked.service.{cluster.spec.domain}").records == ()
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
def test_the_check_is_of_the_requested_kind(
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


def test_a_command_that_hangs_is_ended_and_counts_as_failed(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    run_container(
        node,
        f"--name web {WEB} -e SERVICE_CHECK_CMD='test -e /ready || sleep 4321' "
        f"-e SERVICE_CHECK_INTERVAL=200ms -e SERVICE_CHECK_TIMEOUT={node.scaled(1):g}s",
        "sh -c 'touch /ready; exec sleep 1000000'",
    )
    check = f"service:{node.name}:web:80"
    announced.wait_status(node, check, "passing")
    node.succeed("docker exec web rm /ready")
    announced.wait_status(node, check, "critical")
    node.succeed("docker exec web touch /ready")
    announced.wait_status(node, check, "passing")
    node.wait_until_succeeds("! pgrep -f '^sleep 4321'", timeout=SOON)


def test_a_script_is_run_on_the_node_without_privileges(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    script = 'test "$(id -u)" = 65534 && nc -z $SERVICE_IP $SERVICE_PORT || exit 2'
    run_container(
        node, f"--name web {WEB} -e SERVICE_CHECK_SCRIPT='{script}' -e SERVICE_CHECK_INTERVAL=200ms", "httpd -f"
    )
    announced.wait_status(node, f"service:{node.name}:web:80", "passing")


def test_a_script_of_the_image_is_not_run(
    node: Node, announced: Announced, run_container: DockerRun, busybox_image: str
) -> None:
    script = "ENV SERVICE_CHECK_SCRIPT=touch\\ /tmp/it-ran SERVICE_CHECK_INTERVAL=200ms SERVICE_REGION=eu"
    node.succeed(
        f"docker create --name made {busybox_image} true && docker commit --change '{script}' made with-script"
    )
    try:
        run_container(node, f"--name web {WEB}", image="with-script")
        service = announced.wait(node, f"{node.name}:web:80")
        assert service["Meta"]["region"] == "eu"
        assert announced.checks(node, service["ID"]) == {}
    finally:
        node.succeed("docker rm --force web made && docker rmi with-script")


def test_the_healthcheck_of_the_container_is_a_check(
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


def test_a_new_container_of_the_same_name_has_its_own_checks(
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

    node.until("the new container's service without a check", probe, timeout=SOON)
