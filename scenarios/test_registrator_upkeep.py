"""The options of the registrator, and the rights of its token."""

import time

import pytest

from fixtures.containers import DockerRun
from fixtures.registrator import CONSUL, SOON, Announced, StartRegistrator, environment
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.ssh import Result

WEB = "-p 8080:80"

#: Runs until `docker exec NAME touch /end`, then ends with a status.
UNTIL_ENDED = "sh -c 'rm -f /end; until test -e /end; do sleep 0.1; done; exit {}'"


def registrator(node: Node, arguments: str, *, but: str = "", limit: int = 20) -> Result:
    """Run a registrator for at most `limit` seconds with the environment of the node's own, `but` some variables."""
    variables = " ".join(pair for pair in environment(node) if not but or not pair.startswith(but))
    return node.execute(
        f"env {variables} timeout {node.scaled(limit):g} python3 -m swarmer.node.registrator {arguments}"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "the following arguments are required: uri"),
        (f"{CONSUL} {CONSUL}", "expected exactly one registry URI"),
        (f"-ttl 10 {CONSUL}", "-ttl and -ttl-refresh are only valid together"),
        (f"-ttl 10 -ttl-refresh 10 {CONSUL}", "-ttl must be greater than -ttl-refresh"),
        (f"-deregister sometimes {CONSUL}", "invalid choice: 'sometimes'"),
        ("consul://[::1", "is not a URI"),
        (f"-token-file /usr/bin/python3 {CONSUL}", "does not contain a token"),
        ("etcd://127.0.0.1", "is not a known registry"),
    ],
)
def test_an_invalid_command_line_is_reported(node: Node, arguments: str, sentence: str) -> None:
    done = registrator(node, arguments)
    assert done.status == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_consul_that_does_not_answer_is_retried_as_often_as_the_option_says(node: Node) -> None:
    start = time.monotonic()
    done = registrator(node, "-retry-attempts=4 -retry-interval=500 consul-tls://127.0.0.1:8599")
    assert done.status == 1
    assert "cannot reach consul" in done.stderr
    assert time.monotonic() - start >= 4 * 0.5


@pytest.mark.parametrize("but", ["CONSUL_CLIENT_", "CONSUL_CACERT"])
def test_without_certificates_consul_can_not_be_reached(node: Node, but: str) -> None:
    done = registrator(node, CONSUL, but=but)
    assert done.status == 1, done
    assert "cannot reach consul" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_token_nothing_is_announced(node: Node, announced: Announced, run_container: DockerRun) -> None:
    run_container(node, f"--name web {WEB}")
    announced.wait(node, f"{node.name}:web:80")
    done = registrator(node, f"-hostname probe-tokenless {CONSUL}", but="CONSUL_HTTP_TOKEN_FILE", limit=5)
    assert "consul refused to register probe-tokenless:web:80: Permission denied" in done.stderr
    assert not announced.on(node, by="probe-tokenless")


def test_what_consul_lost_is_announced_again_by_the_next_resync(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name web {WEB}")
    by = start_registrator(node, "-resync=1")
    announced.wait(node, f"{by}:web:80", by=by)
    node.consul.agent.service.deregister(f"{by}:web:80")
    announced.wait(node, f"{by}:web:80", by=by)
    # A change is undone.
    node.consul.agent.service.register("other", service_id=f"{by}:web:80", port=1, meta={"registrator": by})
    node.until_true(
        "it to be as it was", lambda: announced.wait(node, f"{by}:web:80", by=by)["Port"] == 8080, timeout=SOON
    )


def test_cleanup_removes_only_its_own_services_without_a_container(
    node: Node, announced: Announced, start_registrator: StartRegistrator
) -> None:
    register = node.consul.agent.service.register
    register("gone", service_id="probe-cleanup:gone:80", meta={"registrator": "probe-cleanup"})
    register("foreign", service_id="probe-other:web:80", meta={"registrator": "probe-other"})
    register("manual", service_id="manual")
    try:
        start_registrator(node, "-cleanup -resync=1", hostname="probe-cleanup")
        # Once it is sure that the node has no services of the swarm: that takes 3 s.
        announced.wait_gone(node, "probe-cleanup:gone:80", by="probe-cleanup", timeout=2 * SOON)
        # By a resync too, not just at the start.
        register("gone", service_id="probe-cleanup:gone:80", meta={"registrator": "probe-cleanup"})
        announced.wait_gone(node, "probe-cleanup:gone:80", by="probe-cleanup")
        assert {"probe-other:web:80", "manual"} <= set(node.consul.agent.services())
    finally:
        for identity in ("probe-other:web:80", "manual"):
            node.consul.agent.service.deregister(identity)


def test_another_programs_service_is_never_overwritten(
    node: Node, announced: Announced, run_container: DockerRun
) -> None:
    node.consul.agent.service.register("theirs", service_id="taken", port=1)
    try:
        run_container(node, f"--name thief {WEB} -e SERVICE_ID=taken")
        run_container(node, "--name web -p 8081:80")
        announced.wait(node, f"{node.name}:web:80")
        assert node.consul.agent.services()["taken"]["Service"] == "theirs"
    finally:
        node.consul.agent.service.deregister("taken")


def test_a_heartbeat_continues_only_while_the_container_is_seen(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    run_container(node, f"--name web {WEB}")
    ttl = round(node.scaled(3))
    by = start_registrator(node, f"-ttl={ttl} -ttl-refresh=1")
    check = f"heartbeat:{by}:web:80"
    announced.wait_status(node, check, "passing")
    end = time.monotonic() + 2 * ttl
    while time.monotonic() < end:
        assert node.consul.agent.checks()[check]["Status"] == "passing"
    node.succeed(f"systemctl kill --signal=STOP {by}")
    try:
        announced.wait_status(node, check, "critical", timeout=3 + SOON)
    finally:
        node.succeed(f"systemctl kill --signal=CONT {by}")
    announced.wait_status(node, check, "passing")


def test_on_success_keeps_the_services_of_failed_containers(
    node: Node, announced: Announced, run_container: DockerRun, start_registrator: StartRegistrator
) -> None:
    by = start_registrator(node, "-deregister on-success -resync 1")
    exits = {"zero": 0, "failed": 3, "signalled": 1, "removed": 3}
    for number, (name, status) in enumerate(exits.items()):
        options = "--rm " if name == "removed" else ""
        run_container(node, f"{options}--name {name} -p {8080 + number}:80", UNTIL_ENDED.format(status))
        announced.wait(node, f"{by}:{name}:80", by=by)
    node.succeed("docker kill signalled")
    for name in ("zero", "removed", "failed"):
        node.succeed(f"docker exec {name} touch /end")
    for name in exits:
        announced.wait_gone(node, f"{node.name}:{name}:80")
        if name != "failed":
            announced.wait_gone(node, f"{by}:{name}:80", by=by)
    assert set(announced.on(node, by=by)) == {f"{by}:failed:80"}
    node.succeed("docker start failed")
    announced.wait(node, f"{node.name}:failed:80")
    node.succeed("docker rm -f failed")
    announced.wait_gone(node, f"{by}:failed:80", by=by)


def test_its_token_has_the_right_to_announce_services_and_hardly_any_other(cluster: Cluster, node: Node) -> None:
    def status(method: str, path: str, body: str = "", *, of: str = "registrator") -> int:
        found = node.succeed(
            f"curl -s -o /dev/null -w '%{{http_code}}' -X {method} --data '{body}' "
            f'-H "X-Consul-Token: $(cat /etc/swarmer/tokens/{of})" --cacert /etc/swarmer/consul/ca-chain.pem '
            "--cert /etc/swarmer/consul/node.pem --key /etc/swarmer/consul/node-key.pem "
            f"https://127.0.0.1:8500/v1/{path}"
        )
        return int(found)

    other = cluster.nodes[0]
    assert status("GET", "agent/services") == 200
    for method, path, body in (
        ("PUT", "kv/registrator/swarm/x", "{}"),
        ("PUT", "kv/elsewhere", "x"),
        ("GET", "kv/swarm/?recurse", ""),
        ("PUT", "agent/maintenance?enable=true", ""),
        ("PUT", "agent/service/register", '{"Name": "consul"}'),
        ("PUT", "agent/service/register", '{"Name": "swarm"}'),
        ("PUT", "catalog/deregister", f'{{"Node": "{other.name}"}}'),
        ("PUT", "catalog/register", f'{{"Node": "{node.name}", "Address": "10.0.0.1"}}'),
        ("PUT", "session/create", f'{{"Node": "{node.name}"}}'),
        ("GET", "acl/tokens", ""),
    ):
        # To a client without the right, consul shows a list as empty.
        assert status(method, path, body) in (403, 404), (method, path)
    if "registrator-labels" in node.succeed("ls /etc/swarmer/tokens"):
        assert status("PUT", "agent/service/register", '{"Name": "x"}', of="registrator-labels") == 403
        assert status("PUT", "kv/elsewhere", "x", of="registrator-labels") == 403
