"""The names and addresses of each certificate of a node, and its use as a server or a client."""

from ipaddress import IPv4Address
from typing import Final

from swarmer.secrets.authority import Authority, Identity
from swarmer.secrets.client_files import Plane

LOOPBACK: Final = IPv4Address("127.0.0.1")


def consul_identity(authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address, server: bool) -> Identity:
    """The certificate of a node for consul, where every node is both server and client.

    Only that of a consul server has the name `server.DC.STACK`, by which agents recognize servers
    (`verify_server_hostname`).
    """
    names = [f"{node}.node.{dc}.{stack}", f"consul.service.{dc}.{stack}", "localhost"]
    names += [f"server.{dc}.{stack}"] if server else []
    return authority.issue(Plane.CONSUL, node, dns=names, ip=[ip, LOOPBACK], server=True, client=True)


def docker_identity(
    authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address, manager: bool
) -> Identity:
    """The certificate of a node for its docker API. It is not a client's: nodes do not administrate each other."""
    names = [f"{node}.node.{dc}.{stack}", "localhost"]
    names += [f"swarm.service.{dc}.{stack}"] if manager else []
    return authority.issue(Plane.DOCKER, node, dns=names, ip=[ip, LOOPBACK], server=True, client=False)


def registry_identity(authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address) -> Identity:
    """The certificate of a registry node. Each of them may answer under the name of the registry."""
    names = [f"{node}.node.{dc}.{stack}", f"registry.service.{dc}.{stack}", "localhost"]
    return authority.issue(Plane.REGISTRY, node, dns=names, ip=[ip, LOOPBACK], server=True, client=False)


def registry_client(authority: Authority, *, node: str, dc: str, stack: str) -> Identity:
    """The certificate by which a node pulls. Its common name ends in a dot, so that it never is `CLIENT_NAME`."""
    # The full name may exceed the 64 characters of a common name.
    dns = [f"{node}.node.{dc}.{stack}"]
    return authority.issue(Plane.REGISTRY, f"{node}.", dns=dns, ip=[], server=False, client=True)
