"""Running the image's consul client, and sending plain HTTP requests, against a consul server that answers.

The token is passed in the environment, never on a command line, which every user of the machine can read.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import requests

from swarmer.clients import consul_api, direct
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.commands.program import Program
from swarmer.image.store import store
from swarmer.ports import CONSUL_HTTPS
from swarmer.secrets.client_files import Plane
from swarmer.shell import capture
from swarmer.ssh import quoted
from swarmer.wait import NotYet

#: Seconds in which the client must print its version; otherwise it does not run on this host.
_VERSION_TIMEOUT = 10.0

#: The environment of a node's own consul client.
_ON_NODE = {
    "CONSUL_HTTP_ADDR": f"https://127.0.0.1:{CONSUL_HTTPS.number}",
    "CONSUL_CACERT": "/etc/swarmer/consul/ca-chain.pem",
    "CONSUL_CLIENT_CERT": "/etc/swarmer/consul/node.pem",
    "CONSUL_CLIENT_KEY": "/etc/swarmer/consul/node-key.pem",
}


def command(cluster: Cluster, arguments: Sequence[str]) -> Program:
    """`consul ARGUMENT…` for a server that answers, with the management token.

    The program is taken from the layers of the cluster's image. If they aren't on this host, or the program doesn't
    run here, the node's own one is run over SSH.

    Raises:
        GaveUp: no server answers.
    """
    node = answering(cluster)
    token = {"CONSUL_HTTP_TOKEN": cluster.credentials.management_token}
    if program := _program(cluster):
        files = cluster.home.client(Plane.CONSUL)
        settings = {
            "CONSUL_HTTP_ADDR": f"https://{node.endpoint}:{CONSUL_HTTPS.number}",
            "CONSUL_CACERT": str(files.trust),
            "CONSUL_CLIENT_CERT": str(files.certificate),
            "CONSUL_CLIENT_KEY": str(files.key),
            **direct.no_proxy(node.endpoint),
        }
        return Program([str(program), *arguments], os.environ | settings | token)
    there = quoted("env", *(f"{name}={value}" for name, value in _ON_NODE.items()), "consul", *arguments)
    options = ["-o", "SendEnv=CONSUL_HTTP_TOKEN", "-o", "ControlPath=none"]
    return Program(cluster.ssh.command(node.name, "--", there, options=options), os.environ | token)


def request(cluster: Cluster, method: str, path: str, body: bytes | None = None) -> requests.Response:
    """Send an HTTP request with the management token to a server that answers.

    Args:
        path: includes the query, as in `/v1/kv/name?raw`.

    Raises:
        GaveUp: no server answers.
        requests.RequestException: the server stopped answering.
    """
    node = answering(cluster)
    files = cluster.home.client(Plane.CONSUL)
    with direct.session() as session:
        return session.request(
            method,
            f"https://{node.endpoint}:{CONSUL_HTTPS.number}/{path.lstrip('/')}",
            data=body,
            headers={"X-Consul-Token": cluster.credentials.management_token},
            verify=str(files.trust),
            cert=(str(files.certificate), str(files.key)),
            timeout=330,  # seconds; consul's longest default for a blocking query is five minutes, plus its jitter
        )


def answering(cluster: Cluster) -> Node:
    """The first consul server that answers and knows a leader; waits up to 15 s for one.

    Raises:
        GaveUp: no server answered in time.
    """

    def probe() -> Node:
        for node in cluster.consul_servers:
            try:
                if node.running and node.consul.status.leader():
                    return node
            except consul_api.Unavailable:
                continue
        raise NotYet("none answers")

    return cluster.until("a consul server that answers", probe, timeout=15)


def _program(cluster: Cluster) -> Path | None:
    """The consul of the cluster's image, if it exists on this host and runs here."""
    for layer in reversed(cluster.ledger.layers):
        program = store() / layer / "root/usr/bin/consul"
        if program.exists():
            try:
                done = capture([program, "version"], timeout=_VERSION_TIMEOUT)
            except (OSError, subprocess.TimeoutExpired):
                return None
            return program if done.returncode == 0 else None
    return None
