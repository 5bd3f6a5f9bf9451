"""What must be true of a cluster beyond each value by itself, and what is allowed but unwise."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from swarmer.spec.flaws import Flaw
from swarmer.spec.values import Registry, Server


def address_flaws(network: IPv4Network, servers: Sequence[Server]) -> Iterator[Flaw]:
    """Names and addresses that are there twice, or can't be a node's."""
    reserved = {
        network.network_address: "the network's own address",
        network.broadcast_address: "the network's broadcast address",
        network[1]: "the host's own address",
    }
    taken = {server.ip for server in servers}
    free = next((ip for ip in islice(network.hosts(), 1, None) if ip not in taken), None)
    elsewhere = f"{free} is free" if free else f"{network} is full: take a larger admin_network"
    names: set[str] = set()
    owners: dict[IPv4Address, str] = {}
    for index, (name, ip) in enumerate((server.name, server.ip) for server in servers):
        at = ("servers", index, "ip")
        if name in names:
            hint = "nodes are told apart by their host names: give this one another"
            yield Flaw(("servers", index, "name"), f"a second server is called {name}", hint)
        if ip in owners:
            yield Flaw(at, f"{name} has the address of {owners[ip]}, {ip}", elsewhere)
        if ip not in network:
            yield Flaw(at, f"{name} has an address outside {network}, {ip}", elsewhere)
        elif ip in reserved:
            yield Flaw(at, f"{name} has {reserved[ip]}, {ip}", elsewhere)
        names.add(name)
        owners.setdefault(ip, name)


def role_flaws(servers: Sequence[Server]) -> Iterator[Flaw]:
    """Roles that make no cluster, or none that survives a loss."""
    at = ("servers",)
    voters = [index for index, server in enumerate(servers) if server.votes]
    if not servers:
        yield Flaw(at, "there are no servers", "list one at least, better three")
        return
    if not voters:
        yield Flaw(at, "no node is a consul server", "give an odd number of them `consul: server`")
    elif len(voters) % 2 == 0:
        message = f"{servers[voters[-1]].name} makes the number of consul servers even, {len(voters)}"
        hint = "an odd number survives as many losses: make one more a `consul: server`, or one less"
        yield Flaw(("servers", voters[-1], "consul"), message, hint)
    if not any(server.manages for server in servers):
        yield Flaw(at, "no node is a swarm manager", "give one of them `swarm: both`")


def registry_flaws(registry: Registry) -> Iterator[Flaw]:
    """What is missing for the storage, or means nothing with it."""
    given = [key for key in ("bucket", "region", "endpoint", "credentials") if getattr(registry, key) is not None]
    if registry.storage == "filesystem" and given:
        message = f"{given[0]} of the registry means nothing on the nodes' disks"
        yield Flaw(("registry", given[0]), message, f"remove `{given[0]}`, or choose `storage: s3`")
    for key in ("bucket", "region"):
        if registry.storage == "s3" and key not in given:
            yield Flaw(("registry",), f"{key} of the registry is missing", f"name the {key} that `storage: s3` uses")


def advice(servers: Sequence[Server]) -> list[str]:
    """What is allowed but unwise, one sentence each."""
    sentences: list[str] = []
    managers = sum(server.manages for server in servers)
    if len(servers) < 3:
        sentences.append("one consul server below three nodes: for development only")
    elif sum(server.votes for server in servers) == 1:
        sentences.append("one consul server: its loss stops the cluster; of three, any one may be lost")
    if managers % 2 == 0:
        sentences.append(f"{managers} swarm managers survive no more losses than {managers - 1}")
    return sentences
