"""For which names and addresses each certificate of a node is valid, and what it may be used for."""

from ipaddress import IPv4Address
from typing import Final

from swarmer.secrets.authority import Authority, Identity
from swarmer.secrets.client_files import Plane

LOOPBACK: Final = IPv4Address("127.0.0.1")


def consul_identity(authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address, server: bool) -> Identity:
    """A node's certificate for consul, where every node is both server and client.

    Only a consul server's holds the name `server.DC.STACK`: with `verify_server_hostname`, that name is what
    makes a consul server.
    """
    names = [f"{node}.node.{dc}.{stack}", f"consul.service.{dc}.{stack}", "localhost"]
    names += [f"server.{dc}.{stack}"] if server else []
    return authority.issue(Plane.CONSUL, node, dns=names, ip=[ip, LOOPBACK], server=True, client=True)


def docker_identity(
    authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address, manager: bool
) -> Identity:
    """A node's certificate for its docker API. No client's: a node is no administrator of its peers."""
    names = [f"{node}.node.{dc}.{stack}", "localhost"]
    names += [f"swarm.service.{dc}.{stack}"] if manager else []
    return authority.issue(Plane.DOCKER, node, dns=names, ip=[ip, LOOPBACK], server=True, client=False)


def registry_identity(authority: Authority, *, node: str, dc: str, stack: str, ip: IPv4Address) -> Identity:
    """By which a registry node answers. Any of them answers for the registry."""
    names = [f"{node}.node.{dc}.{stack}", f"registry.service.{dc}.{stack}", "localhost"]
    return authority.issue(Plane.REGISTRY, node, dns=names, ip=[ip, LOOPBACK], server=True, client=False)


def registry_client(authority: Authority, *, node: str, dc: str, stack: str) -> Identity:
    """By which a node pulls. Its common name ends in a dot, so that no node can be named like `CLIENT_NAME`."""
    # The whole name may be longer than the 64 characters of a common name.
    dns = [f"{node}.node.{dc}.{stack}"]
    return authority.issue(Plane.REGISTRY, f"{node}.", dns=dns, ip=[], server=False, client=True)
