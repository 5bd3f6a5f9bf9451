"""The seed data of a node's docker engine: daemon.json, and the certificates that it refers to.

The engine listens on its unix socket, which systemd passes to it, and on the admin network with mutual TLS. It verifies
clients against the issuing CA of the docker plane alone; certificates of nodes are not client certificates. Source: the
reference of dockerd.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any, Final

from swarmer.ports import DOCKER
from swarmer.secrets.authority import Authority
from swarmer.secrets.client_files import Plane
from swarmer.secrets.identities import docker_identity
from swarmer.spec import Server, Spec, SwarmRole

#: Where the seed data puts the docker plane's files on a node.
FOLDER: Final = "/etc/swarmer/docker"

#: The pool for addresses of overlay networks, docker's default.
_OVERLAY_POOL: Final = IPv4Network("10.0.0.0/8")


def daemon(server: Server) -> dict[str, Any]:
    """The content of `/etc/docker/daemon.json`."""
    return {
        "hosts": ["fd://", f"tcp://{server.ip}:{DOCKER.number}"],
        "tlsverify": True,
        "tlscacert": f"{FOLDER}/ca.pem",
        "tlscert": f"{FOLDER}/node.pem",
        "tlskey": f"{FOLDER}/node-key.pem",
        # Containers resolve the cluster's names without any option to `docker run`.
        "dns": [str(server.ip)],
        # Limits the logs of containers, so that they don't fill the disk, which consul and the registry use as well.
        "log-driver": "json-file",
        "log-opts": {"max-size": "20m", "max-file": "3"},
    }


def files(spec: Spec, server: Server) -> Mapping[str, str]:
    """Path on the node to content; none of the files is secret."""
    content = {"/etc/docker/daemon.json": _json(daemon(server))}
    if server.swarm is not SwarmRole.AGENT:
        content["/etc/swarmer/swarm.json"] = _json(_swarm(spec))
    return content


def certificates(authority: Authority, spec: Spec, server: Server) -> tuple[Mapping[str, str], str]:
    """Path on the node to content of the public files; and the private key, which is written to `node-key.pem`."""
    manager = server.swarm is not SwarmRole.AGENT
    identity = docker_identity(authority, node=server.name, dc=spec.dc, stack=spec.stack, ip=server.ip, manager=manager)
    public = {
        f"{FOLDER}/ca.pem": authority.plane_bundle(Plane.DOCKER).decode(),
        f"{FOLDER}/node.pem": identity.certificate.decode(),
    }
    return public, identity.key.decode()


def overlay_pool(admin_network: IPv4Network) -> IPv4Network:
    """The pool for addresses of overlay networks; it never overlaps the admin network."""
    halves = _OVERLAY_POOL.subnets() if admin_network.overlaps(_OVERLAY_POOL) else [_OVERLAY_POOL]
    return next((half for half in halves if not half.overlaps(admin_network)), IPv4Network("172.24.0.0/13"))


def _swarm(spec: Spec) -> dict[str, Any]:
    """The swarm's configuration for its managers; read by `swarmer.node.swarm`.

    For each node: its role and availability; the address at which managers reach each other; and its labels, because a
    node must not be able to assign itself a label, and so obtain the secrets of tasks that are constrained to it.
    """
    return {
        "overlay_pool": str(overlay_pool(spec.admin_network)),
        "nodes": {
            peer.name: {
                "ip": str(peer.ip),
                "role": "worker" if peer.swarm is SwarmRole.AGENT else "manager",
                "availability": "drain" if peer.swarm is SwarmRole.MANAGER else "active",
                "labels": peer.node_labels,
            }
            for peer in spec.servers
        },
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
