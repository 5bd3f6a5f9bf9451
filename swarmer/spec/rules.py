"""Rules that concern several values of a spec, and advice about valid but unwise clusters."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from swarmer.spec.flaws import Flaw
from swarmer.spec.stacks import StackRules
from swarmer.spec.values import LOOPBACK_NAMES, Registry, Server


def address_flaws(rules: StackRules, network: IPv4Network, servers: Sequence[Server]) -> Iterator[Flaw]:
    """Names and addresses that are used twice, or that no node can have."""
    reserved = rules.reserved_addresses(network)
    taken = {server.ip for server in servers}
    free = next((network[place] for place in rules.places(network) if network[place] not in taken), None)
    elsewhere = f"{free} is free" if free else f"{network} is full; choose a larger admin_network"
    names: set[str] = set()
    owners: dict[IPv4Address, str] = {}
    for index, (name, ip) in enumerate((server.name, server.ip) for server in servers):
        at = ("servers", index, "ip")
        if name in LOOPBACK_NAMES:
            message = f"server {index + 1} is named {name}, as every machine names itself"
            yield Flaw(("servers", index, "name"), message, f"rename it, such as {name}-1")
        if name in names:
            yield Flaw(("servers", index, "name"), f"duplicate server name {name}", "rename one of the servers")
        if ip in owners:
            yield Flaw(at, f"{name} has the same address as {owners[ip]}, {ip}", elsewhere)
        if ip not in network:
            yield Flaw(at, f"{name} has an address outside {network}, {ip}", elsewhere)
        elif ip in reserved:
            yield Flaw(at, f"{name} has {reserved[ip]}, {ip}", elsewhere)
        names.add(name)
        owners.setdefault(ip, name)


def role_flaws(servers: Sequence[Server]) -> Iterator[Flaw]:
    """Roles without which there is no cluster, and an even number of consul servers."""
    at = ("servers",)
    voters = [index for index, server in enumerate(servers) if server.votes]
    if not servers:
        yield Flaw(at, "there are no servers", "list at least one, preferably three")
        return
    if not voters:
        yield Flaw(at, "no node is a consul server", "set `consul: server` on an odd number of nodes")
    elif len(voters) % 2 == 0:
        message = f"{servers[voters[-1]].name} makes the number of consul servers even ({len(voters)})"
        hint = "one server less tolerates as many losses: add or remove a `consul: server`"
        yield Flaw(("servers", voters[-1], "consul"), message, hint)
    if not any(server.manages for server in servers):
        yield Flaw(at, "no node is a swarm manager", "set `swarm: both` on at least one node")


def registry_flaws(registry: Registry) -> Iterator[Flaw]:
    """Keys that the storage requires, or doesn't support."""
    given = [key for key in ("bucket", "region", "endpoint", "credentials") if getattr(registry, key) is not None]
    if registry.storage == "filesystem" and given:
        message = f"{given[0]} of the registry requires `storage: s3`"
        yield Flaw(("registry", given[0]), message, f"set `storage: s3`, or remove `{given[0]}`")
    for key in ("bucket", "region"):
        if registry.storage == "s3" and key not in given:
            yield Flaw(("registry",), f"{key} of the registry is missing", f"`storage: s3` requires a {key}")


def advice(servers: Sequence[Server]) -> list[str]:
    """Advice about valid but unwise roles, one sentence each."""
    sentences: list[str] = []
    managers = sum(server.manages for server in servers)
    if len(servers) < 3:
        sentences.append("fewer than three nodes: one consul server, for development only")
    elif sum(server.votes for server in servers) == 1:
        sentences.append("one consul server: its loss stops the cluster, whereas three tolerate the loss of any one")
    if managers % 2 == 0:
        sentences.append(f"{managers} swarm managers tolerate no more losses than {managers - 1}")
    return sentences
