"""Access to docker engines from this host: clients with the cluster's certificates, and queries about the swarm."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

import docker
import docker.errors
import docker.tls
import requests

from swarmer.ports import DOCKER
from swarmer.secrets.client_files import Plane
from swarmer.state import ClusterHome

#: The exceptions of a client whose engine is down, or whose swarm has no leader.
Unavailable: Final = (requests.RequestException, docker.errors.DockerException)

#: Seconds after which a request to an engine that doesn't answer fails.
REQUEST_TIMEOUT: Final = 10.0

#: The API version of the image's engine; negotiating it would cost a request per client.
_API_VERSION: Final = "1.45"


@dataclass(frozen=True)
class Member:
    """A node of the swarm, as its managers see it.

    Attributes:
        name: its host name in docker. In the second after an election it may be another node's; empty for an entry
            that never reported one.
        address: the address at which other managers reach a manager; empty for a worker.
        state: `ready`, `down`, `unknown` or `disconnected`.
        availability: `active`, `pause` or `drain`.
        reachability: of a manager, `reachable`, `unreachable` or `unknown`; empty for a worker.
    """

    id: str
    name: str
    address: str
    state: str
    availability: str
    reachability: str
    leader: bool
    labels: dict[str, str]

    @property
    def manager(self) -> bool:
        """Whether it is a manager."""
        return bool(self.reachability)


def client(home: ClusterHome, address: IPv4Address, *, slowness: float = 1.0) -> docker.DockerClient:
    """A client of the engine at `address`, with the cluster's client certificate."""
    files = home.client(Plane.DOCKER)
    tls = docker.tls.TLSConfig(
        client_cert=(str(files.certificate), str(files.key)), ca_cert=str(files.trust), verify=True
    )
    url = f"tcp://{address}:{DOCKER.number}"
    api = docker.DockerClient(base_url=url, tls=tls, version=_API_VERSION, timeout=REQUEST_TIMEOUT * slowness)
    api.api.trust_env = False  # otherwise REQUESTS_CA_BUNDLE would override the cluster's CA, and proxies would be used
    return api


def members(api: docker.DockerClient) -> list[Member]:
    """The nodes of the swarm, as a manager lists them.

    Raises:
        Unavailable: the node isn't a manager, doesn't answer, or the swarm has no leader.
    """
    return [_member(node) for node in api.api.nodes()]


def reason(error: Exception) -> str:
    """The reason why a client failed; docker's own message if it sent one."""
    if explanation := getattr(error, "explanation", None):
        return str(explanation)
    if isinstance(error, requests.RequestException):
        return f"docker doesn't answer ({type(error).__name__})"
    return str(error)


def _member(node: dict[str, Any]) -> Member:
    status = node.get("ManagerStatus") or {}
    return Member(
        id=node["ID"],
        name=(node.get("Description") or {}).get("Hostname", ""),
        address=status.get("Addr", "").rpartition(":")[0],
        state=node["Status"]["State"],
        availability=node["Spec"]["Availability"],
        reachability=status.get("Reachability", ""),
        leader=status.get("Leader", False),
        labels=node["Spec"].get("Labels") or {},
    )
