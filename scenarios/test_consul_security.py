"""Consul talks to nobody without a certificate, and tells nobody without a token."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import consul as py_consul
import pytest
import requests

from swarmer.clients import consul_api, direct
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.ports import CONSUL_GOSSIP, CONSUL_HTTPS, CONSUL_RPC
from swarmer.secrets.client_files import Plane


@pytest.mark.smoke
def test_a_caller_without_a_client_certificate_is_turned_away(cluster: Cluster, nodes: list[Node]) -> None:
    trust = str(cluster.home.client(Plane.CONSUL).trust)
    for node in nodes:
        with direct.session() as session, pytest.raises(requests.ConnectionError):
            session.get(f"https://{node.ip}:{CONSUL_HTTPS.number}/v1/status/leader", verify=trust, timeout=5)


def test_plain_http_is_not_spoken(nodes: list[Node]) -> None:
    for node in nodes:
        answer = node.execute(f"curl -s http://{node.ip}:{CONSUL_HTTPS.number}/v1/status/leader")
        assert "HTTP request to an HTTPS server" in answer.stdout, node


def test_a_certificate_of_a_stranger_is_turned_away(nodes: list[Node]) -> None:
    for node in nodes:
        answer = node.execute(
            "cd $(mktemp -d) && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
            "-subj /CN=stranger -keyout key -out cert 2>/dev/null && "
            "curl -sS --cacert /etc/swarmer/consul/ca-chain.pem --cert cert --key key "
            f"https://127.0.0.1:{CONSUL_HTTPS.number}/v1/status/leader"
        )
        assert answer.status, f"{node.name} answered a stranger: {answer.stdout}"


def test_every_node_proves_itself_under_its_names(cluster: Cluster, nodes: list[Node]) -> None:
    domain = cluster.spec.domain
    for node in nodes:
        for name in (f"{node.name}.node.{domain}", f"consul.service.{domain}", "localhost"):
            node.succeed(
                f"curl -sS --resolve {name}:{CONSUL_HTTPS.number}:{node.ip} "
                "--cacert /etc/swarmer/consul/ca-chain.pem "
                "--cert /etc/swarmer/consul/node.pem --key /etc/swarmer/consul/node-key.pem "
                f"https://{name}:{CONSUL_HTTPS.number}/v1/status/leader"
            )


@pytest.mark.smoke
def test_without_a_token_nothing_can_be_read_or_written(cluster: Cluster, consul_leader: Node) -> None:
    assert consul_leader.consul.kv.put("secret", "mine")
    for token in ("", "anonymous"):
        nobody = consul_api.client(cluster.home, consul_leader.ip, token=token)
        with pytest.raises(py_consul.ACLPermissionDenied):
            nobody.kv.get("secret")
        with pytest.raises(py_consul.ACLPermissionDenied):
            nobody.kv.put("secret", "theirs")


def test_the_token_of_a_node_is_good_for_that_node_only(cluster: Cluster, nodes: list[Node]) -> None:
    for node in nodes:
        token = cluster.credentials.tokens[f"{node.name}/agent"]
        own = consul_api.client(cluster.home, node.ip, token=token)
        assert {entry["Node"] for entry in own.catalog.nodes()[1]} == {peer.name for peer in nodes}
        with pytest.raises(py_consul.ACLPermissionDenied):
            own.kv.put("any", "thing")
        with pytest.raises(py_consul.ACLPermissionDenied):
            own.acl.tokens.list()
        for peer in nodes:
            if peer is not node:
                elsewhere = consul_api.client(cluster.home, peer.ip, token=token)
                with pytest.raises(py_consul.ACLPermissionDenied):
                    elsewhere.agent.maintenance(True, "taken over")


def test_who_shows_no_token_can_change_no_agent(nodes: list[Node]) -> None:
    for node in nodes:
        for peer in nodes:
            for path in ("agent/maintenance?enable=true", "agent/leave", f"agent/force-leave/{node.name}"):
                answer = node.succeed(
                    "curl -s -o /dev/null -w '%{http_code}' -X PUT --cacert /etc/swarmer/consul/ca-chain.pem "
                    "--cert /etc/swarmer/consul/node.pem --key /etc/swarmer/consul/node-key.pem "
                    f"'https://{peer.ip}:{CONSUL_HTTPS.number}/v1/{path}'"
                )
                assert answer == "403", path


def test_an_agent_with_another_gossip_key_is_refused_for_its_key(
    cluster: Cluster, consul_leader: Node, node: Node
) -> None:
    before = consul_leader.succeed("journalctl --lines=1 --output=export | sed -n 's/^__CURSOR=//p'").strip()
    with _stranger(cluster, node, contact=consul_leader, gossip_key=node.succeed("consul keygen").strip()):
        consul_leader.wait_until_succeeds(
            f"journalctl --unit=consul --after-cursor='{before}' --output=cat |"
            f" grep -F 'No installed keys could decrypt the message' | grep -F 'from={node.ip}:'"
        )
        assert "stranger" not in _members(consul_leader)


def test_an_agent_with_the_gossip_key_of_the_cluster_is_let_in(
    cluster: Cluster, consul_leader: Node, node: Node
) -> None:
    """So it is by its key alone that the other one is refused."""
    with _stranger(cluster, node, contact=consul_leader, gossip_key=cluster.credentials.gossip_key):
        cluster.until_true("the stranger to be a member", lambda: "stranger" in _members(consul_leader), timeout=20)


def test_the_web_interface_is_served_to_the_client_certificate(cluster: Cluster, consul_leader: Node) -> None:
    files = cluster.home.client(Plane.CONSUL)
    page = consul_api.session(consul_leader.consul).get(
        f"https://{consul_leader.ip}:{CONSUL_HTTPS.number}/ui/",
        verify=str(files.trust),
        cert=(str(files.certificate), str(files.key)),
        timeout=5,
    )
    assert page.status_code == 200
    assert "<title>Consul" in page.text


def test_rpc_refuses_plain_connections(consul_servers: list[Node], node: Node) -> None:
    """Also of a node: nobody else reaches the port."""
    plain = (
        "import socket, sys\n"
        "connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)\n"
        "connection.sendall(bytes(1))\n"  # the first byte of an RPC connection without TLS
        "assert connection.recv(1) == b''\n"
    )
    for server in consul_servers:
        node.succeed(f"python3 - {server.ip} {CONSUL_RPC.number}", input=plain)


def test_lost_rules_are_written_again_and_no_server_is_content_before(
    consul: py_consul.Consul, consul_leader: Node, consul_followers: list[Node]
) -> None:
    def tokens() -> dict[str, str]:
        return {token.get("Description", ""): token.get("AccessorID", "") for token in consul.acl.tokens.list()}

    before = tokens()
    lost = f"{consul_leader.name}/registrator"
    consul.acl.tokens.delete(before[lost])
    for follower in consul_followers:
        follower.succeed("systemctl restart --no-block swarmer-acl")
        follower.wait_until_succeeds(
            "journalctl --unit swarmer-acl --lines 1 --output cat | grep -q 'to be written by the leader'"
        )
        assert follower.execute("systemctl is-active swarmer-acl").stdout.strip() == "activating"
    consul_leader.succeed("systemctl restart swarmer-acl")
    assert tokens().keys() == before.keys()
    for follower in consul_followers:
        follower.wait_for_unit("swarmer-acl")


# -- what the promises are made of -------------------------------------------------------------------------


def _members(node: Node) -> set[str]:
    """The names of all members that an agent knows, also of those that left."""
    return {member["Name"] for member in node.consul.agent.members()}


@contextmanager
def _stranger(cluster: Cluster, node: Node, *, contact: Node, gossip_key: str) -> Iterator[None]:
    """A consul agent that servers.yml doesn't know: it runs on a node, for only nodes reach the port of the gossip."""
    config = {
        "node_name": "stranger",
        "datacenter": cluster.spec.dc,
        "data_dir": "/run/stranger",
        "bind_addr": str(node.ip),
        "encrypt": gossip_key,
        "disable_host_node_id": True,
        # Other ports than those of the node's own agent.
        "ports": {"serf_lan": 18301, "server": 18300, "http": -1, "dns": -1, "grpc": -1},
        # With the port: without it, memberlist would dial the stranger's own.
        "retry_join": [f"{contact.ip}:{CONSUL_GOSSIP.number}"],
        "retry_interval": "1s",
    }
    node.succeed("install --mode=600 /dev/stdin /run/stranger.json", input=json.dumps(config))
    try:
        node.succeed("systemd-run --quiet --collect --unit=stranger consul agent -config-file=/run/stranger.json")
        yield
    finally:
        node.succeed("systemctl stop stranger; rm -rf /run/stranger /run/stranger.json")
        # It has left; else all agents would remember it for three days.
        consul_api.session(contact.consul).put(
            f"https://{contact.ip}:{CONSUL_HTTPS.number}/v1/agent/force-leave/stranger?prune", **_trust(cluster)
        )
        cluster.until_true(
            "all agents to forget the stranger",
            lambda: not any("stranger" in _members(peer) for peer in cluster.nodes),
            timeout=20,
        )


def _trust(cluster: Cluster) -> dict[str, Any]:
    """Options of a request to consul: what the client trusts, and how it proves itself."""
    files = cluster.home.client(Plane.CONSUL)
    return {"verify": str(files.trust), "cert": (str(files.certificate), str(files.key)), "timeout": 5}
