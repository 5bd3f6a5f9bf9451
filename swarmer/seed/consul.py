"""The consul configuration of one node, for the consul version that the image holds.

What is the same on every node and in every version stands as a literal file in
`image/rootfs/etc/consul.d/node.json`; here is the rest. Sources: the agent configuration reference of 1.8 and
of current releases; both renderings are checked by `consul validate` where that binary is at hand.
"""

import math
from typing import Any, Final

from swarmer.ports import CONSUL_DNS, CONSUL_GOSSIP, CONSUL_HTTPS, CONSUL_RPC
from swarmer.secrets.credentials import Credentials
from swarmer.spec import ConsulRole, Server, Spec

#: Where the seed data puts the consul plane's files on a node.
FOLDER: Final = "/etc/swarmer/consul"

_TLS_FILES: Final = {
    "ca_file": f"{FOLDER}/ca.pem",
    "cert_file": f"{FOLDER}/node.pem",
    "key_file": f"{FOLDER}/node-key.pem",
}

#: Gossip for a LAN of few nodes on busy hosts; measured by `benchmarks/failure_detection.py`, and explained
#: in docs/architecture.md. Consul's own defaults take 5.6 to 6.7 s to declare a node dead.
GOSSIP: Final[dict[str, str | int]] = {
    "probe_interval": "300ms",
    "probe_timeout": "200ms",
    "suspicion_mult": 4,
    "gossip_interval": "100ms",
}

#: The largest that consul takes.
_MOST_PATIENT_RAFT: Final = 10


def render(
    spec: Spec, server: Server, credentials: Credentials, *, version: tuple[int, ...], slowness: float = 1
) -> dict[str, Any]:
    """The configuration of one node's agent, as consul's JSON.

    Args:
        version: of the consul binary in the image, `(1, 8, 7)`. Options were renamed in 1.9 (`ui_config`),
            1.11 (`initial_management`) and 1.12 (`tls`).
        slowness: of the machines, a factor. Emulated ones would take each other for dead, and elect without end.
    """
    voters = spec.consul_servers
    is_server = server.consul is ConsulRole.SERVER
    config: dict[str, Any] = {
        "node_name": server.name,
        "datacenter": spec.dc,
        "domain": spec.stack,
        "server": is_server,
        "bind_addr": str(server.ip),
        "advertise_addr": str(server.ip),
        "client_addr": f"{server.ip} 127.0.0.1",
        "addresses": {"dns": f"{server.ip} 127.0.0.1" if is_server else "127.0.0.1"},
        "ports": {
            "http": -1,
            "https": CONSUL_HTTPS.number,
            "dns": CONSUL_DNS.number,
            "server": CONSUL_RPC.number,
            "serf_lan": CONSUL_GOSSIP.number,
            "serf_wan": -1,
            "grpc": -1,
        },
        "encrypt": credentials.gossip_key,
        "retry_join": [str(peer.ip) for peer in voters if peer != server],
        "gossip_lan": {name: _longer(value, slowness) for name, value in GOSSIP.items()},
        "performance": {"raft_multiplier": min(_MOST_PATIENT_RAFT, math.ceil(slowness))},
        "node_meta": {"swarm": str(server.swarm)},
    }
    if is_server:
        config["bootstrap_expect"] = len(voters)
        config["autopilot"] = {
            # A server that is only cut off stays a peer: two of three would be one loss from no quorum. One that was
            # replaced goes at once all the same, since its address has a new server.
            "cleanup_dead_servers": True,
            "min_quorum": len(voters),
            "server_stabilization_time": "1s",
            # The leader is heard of every 100 to 200 ms: consul's 200 ms would call a server on a busy host unwell,
            # and keep it from voting. This is raft's heartbeat time-out.
            "last_contact_threshold": _longer("1000ms", slowness),
        }

    # Who asks DNS has no token of their own, and gets this one, as everybody without a token does. A node that has just
    # begun answers them "error" while its token is unknown, and not "no such name" as to the anonymous. For its own
    # entries it has no token yet: `swarmer.node.acl` brings it into force once the servers know it.
    config["acl"] = {
        "enabled": True,
        "default_policy": "deny",
        "down_policy": "extend-cache",
        "enable_token_persistence": True,
        "token_ttl": "1s",
        "tokens": {"default": credentials.tokens[f"{server.name}/dns"]},
    }
    if is_server:
        management = "initial_management" if version >= (1, 11) else "master"
        config["acl"]["tokens"][management] = credentials.management_token

    if version >= (1, 9):
        config["ui_config"] = {"enabled": True}
    else:
        config["ui"] = True

    if version >= (1, 12):
        config["tls"] = {
            "defaults": {**_TLS_FILES, "verify_incoming": True, "verify_outgoing": True},
            "internal_rpc": {"verify_server_hostname": True},
        }
        config["ports"]["grpc_tls"] = -1
    else:
        config |= _TLS_FILES
        config |= {"verify_incoming": True, "verify_outgoing": True, "verify_server_hostname": True}
    return config


def _longer(value: str | int, factor: float) -> str | int:
    """A duration in milliseconds, so many times as long; a number as it is."""
    return f"{round(int(value.removesuffix('ms')) * factor)}ms" if isinstance(value, str) else value
