"""The consul configuration of one node, for the consul version in the image.

Settings that are the same on every node and in every version are in `image/rootfs/etc/consul.d/node.json`; this module
renders the rest. Sources: the agent configuration reference of 1.8 and of current releases; both renderings are checked
by `consul validate` if that binary is available.
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
#: in docs/architecture.md. With consul's defaults, it takes 5.6 to 6.7 s to declare a node dead.
GOSSIP: Final[dict[str, str | int]] = {
    "probe_interval": "300ms",
    "probe_timeout": "200ms",
    "suspicion_mult": 4,
    "gossip_interval": "100ms",
}

#: The largest `raft_multiplier` that consul accepts.
_MAX_RAFT_MULTIPLIER: Final = 10


def render(
    spec: Spec, server: Server, credentials: Credentials, *, version: tuple[int, ...], slowness: float = 1
) -> dict[str, Any]:
    """The configuration of one node's agent, as consul's JSON.

    Args:
        version: the version of consul in the image, such as `(1, 8, 7)`. Options were renamed in 1.9 (`ui_config`),
            1.11 (`initial_management`) and 1.12 (`tls`).
        slowness: the factor by which time-outs are multiplied. Without it, emulated machines would declare each other
            dead and hold elections endlessly.
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
        "gossip_lan": {name: _scaled(value, slowness) for name, value in GOSSIP.items()},
        "performance": {"raft_multiplier": min(_MAX_RAFT_MULTIPLIER, math.ceil(slowness))},
        "node_meta": {"swarm": str(server.swarm)},
    }
    if is_server:
        config["bootstrap_expect"] = len(voters)
        config["autopilot"] = {
            # A server that is only partitioned remains a peer: if it were removed, the remaining two of three would
            # lose their quorum with the next failure. A server that was replaced is still removed immediately, since
            # a new one has its address.
            "cleanup_dead_servers": True,
            "min_quorum": len(voters),
            "server_stabilization_time": "1s",
            # The leader contacts servers every 100 to 200 ms, so consul's default of 200 ms would mark a server on a
            # busy host as unhealthy and keep it from voting. 1000 ms is raft's heartbeat time-out.
            "last_contact_threshold": _scaled("1000ms", slowness),
        }

    # The default token applies to requests without a token, such as DNS queries. Until the servers know it, a node that
    # has just started answers queries with an error; with the anonymous token, the answer would be "no such name".
    # The agent token isn't set here: `swarmer.node.acl` sets it once the servers know it.
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


def _scaled(value: str | int, factor: float) -> str | int:
    """Multiply a duration such as `300ms` by a factor; an integer is returned unchanged."""
    return f"{round(int(value.removesuffix('ms')) * factor)}ms" if isinstance(value, str) else value
