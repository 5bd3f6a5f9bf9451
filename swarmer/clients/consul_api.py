"""Talking to consul from outside: clients with the cluster's certificates, and questions about its raft."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import consul
import requests

from swarmer.ports import CONSUL_HTTPS
from swarmer.secrets.client_files import Plane
from swarmer.state import ClusterHome

#: What a consul that is down, electing or cut off makes its client raise.
Unavailable = (requests.RequestException, consul.ConsulException)

#: Seconds until a request to an agent that doesn't answer is given up.
REQUEST_TIMEOUT = 3.0


@dataclass(frozen=True)
class Peer:
    """A server in the raft configuration."""

    name: str
    address: str
    voter: bool
    leader: bool


def client(home: ClusterHome, address: IPv4Address, *, token: str, slowness: float = 1.0) -> consul.Consul:
    """A client of the agent at `address`, over HTTPS with the cluster's client certificate."""
    files = home.client(Plane.CONSUL)
    api = consul.Consul(
        host=str(address),
        port=CONSUL_HTTPS.number,
        scheme="https",
        token=token,
        verify=str(files.trust),
        cert=(str(files.certificate), str(files.key)),
        connections_timeout=REQUEST_TIMEOUT * slowness,
    )
    session(api).trust_env = False  # nodes are never behind a proxy of this host's
    # Some of py-consul's calls, `operator.raft_config` among them, send no token of their own.
    session(api).headers["X-Consul-Token"] = token
    return api


def session(api: consul.Consul) -> requests.Session:
    """The HTTP session under a client, for what py-consul has no call for."""
    http: Any = api.http
    found: requests.Session = http.session
    return found


def raft_peers(api: consul.Consul) -> list[Peer]:
    """The raft configuration, as the leader sees it."""
    servers = api.operator.raft_config()["Servers"]
    return [Peer(row["Node"], row["Address"].split(":")[0], row["Voter"], row["Leader"]) for row in servers]


def members_alive(api: consul.Consul) -> set[str]:
    """The nodes whose gossip check passes, by a consistent read."""
    _, checks = api.health.state("passing")
    return {check["Node"] for check in checks if check["CheckID"] == "serfHealth"}


def former_nodes(api: consul.Consul) -> list[str]:
    """The members whose name stands in the catalog for another node, one that was replaced; none, when all is well.

    What such a node announces is refused, and its health is taken for the former one's.
    """
    members = {member["Name"]: member["Tags"].get("id") for member in api.agent.members()}
    _, nodes = api.catalog.nodes(consistency="consistent")
    return sorted(node["Node"] for node in nodes if node["ID"] != members.get(node["Node"], node["ID"]))


def catalog_writes(api: consul.Consul, node: str) -> dict[str, int]:
    """The index of the write that made each entry of a node what it is; equal while nothing was written.

    Services by `service:ID`, checks by `check:ID`, and the newest write of any service of the cluster by `catalog`.
    """
    index, _ = api.catalog.services(consistency="consistent")
    _, known = api.catalog.node(node, consistency="consistent")
    _, checks = api.health.node(node)
    return {
        "catalog": int(index),
        **{f"service:{key}": one["ModifyIndex"] for key, one in known["Services"].items()},
        **{f"check:{one['CheckID']}": one["ModifyIndex"] for one in checks},
    }
