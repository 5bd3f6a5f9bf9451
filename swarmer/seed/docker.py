"""What a node's docker engine is told by the seed data: the whole daemon.json, and the certificates it names.

The engine listens on its unix socket, which systemd hands it, and on the admin network with mutual TLS. It trusts
its callers by the issuing CA of the docker plane alone; certificates of nodes are no clients'. Source: the
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

#: Networks over all nodes get their addresses from here, docker's own default.
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
        # What containers print never fills the disk, which consul and the registry share with them.
        "log-driver": "json-file",
        "log-opts": {"max-size": "20m", "max-file": "3"},
    }


def files(spec: Spec, server: Server) -> Mapping[str, str]:
    """Path on the node to content; none of it is secret."""
    content = {"/etc/docker/daemon.json": _json(daemon(server))}
    if server.swarm is not SwarmRole.AGENT:
        content["/etc/swarmer/swarm.json"] = _json(_swarm(spec))
    return content


def certificates(authority: Authority, spec: Spec, server: Server) -> tuple[Mapping[str, str], str]:
    """Path on the node to content of what anybody may read; and the key, which goes to `node-key.pem`."""
    manager = server.swarm is not SwarmRole.AGENT
    identity = docker_identity(authority, node=server.name, dc=spec.dc, stack=spec.stack, ip=server.ip, manager=manager)
    public = {
        f"{FOLDER}/ca.pem": authority.plane_bundle(Plane.DOCKER).decode(),
        f"{FOLDER}/node.pem": identity.certificate.decode(),
    }
    return public, identity.key.decode()


def overlay_pool(admin_network: IPv4Network) -> IPv4Network:
    """Where networks over all nodes get their addresses from: never from the admin network."""
    halves = _OVERLAY_POOL.subnets() if admin_network.overlaps(_OVERLAY_POOL) else [_OVERLAY_POOL]
    return next((half for half in halves if not half.overlaps(admin_network)), IPv4Network("172.24.0.0/13"))


def _swarm(spec: Spec) -> dict[str, Any]:
    """What managers know of the swarm: `swarmer.node.swarm` reads it.

    The labels of each node, because a node must not be able to give itself one, and so get hold of the secrets of
    tasks that are bound to it; its role and availability; the address by which the managers reach each other.
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
