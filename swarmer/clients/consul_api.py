"""Access to consul from this host: clients with the cluster's certificates, and queries about raft and the catalog."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import consul
import requests

from swarmer.ports import CONSUL_HTTPS
from swarmer.secrets.client_files import Plane
from swarmer.state import ClusterHome

#: The exceptions of a client whose consul is down, partitioned or without a leader.
Unavailable = (requests.RequestException, consul.ConsulException)

#: Seconds after which a request to an agent that doesn't answer fails.
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
    session(api).trust_env = False  # nodes are never reached through this host's proxy
    # Some of py-consul's calls, such as `operator.raft_config`, don't send the token.
    session(api).headers["X-Consul-Token"] = token
    return api


def session(api: consul.Consul) -> requests.Session:
    """The HTTP session of a client, for requests that py-consul has no call for."""
    http: Any = api.http
    found: requests.Session = http.session
    return found


def raft_peers(api: consul.Consul) -> list[Peer]:
    """The servers in the leader's raft configuration."""
    servers = api.operator.raft_config()["Servers"]
    return [Peer(row["Node"], row["Address"].split(":")[0], row["Voter"], row["Leader"]) for row in servers]


def members_alive(api: consul.Consul) -> set[str]:
    """The nodes whose gossip check passes, by a consistent read."""
    _, checks = api.health.state("passing")
    return {check["Node"] for check in checks if check["CheckID"] == "serfHealth"}


def former_nodes(api: consul.Consul) -> list[str]:
    """The members under whose name the catalog still lists another node, which was replaced; normally empty.

    Consul rejects registrations of such a member, and attributes its health to the former node.
    """
    members = {member["Name"]: member["Tags"].get("id") for member in api.agent.members()}
    _, nodes = api.catalog.nodes(consistency="consistent")
    return sorted(node["Node"] for node in nodes if node["ID"] != members.get(node["Node"], node["ID"]))


def catalog_writes(api: consul.Consul, node: str) -> dict[str, int]:
    """The index of the last write of each entry of a node; equal as long as nothing has been written.

    Keys are `service:ID`, `check:ID`, and `catalog` for the last write of any service of the cluster.
    """
    index, _ = api.catalog.services(consistency="consistent")
    _, known = api.catalog.node(node, consistency="consistent")
    _, checks = api.health.node(node)
    return {
        "catalog": int(index),
        **{f"service:{key}": one["ModifyIndex"] for key, one in known["Services"].items()},
        **{f"check:{one['CheckID']}": one["ModifyIndex"] for one in checks},
    }
