"""The spec: the content of `servers.yml` as immutable, valid values.

Every `Spec` satisfies every rule about names, addresses and roles, including one derived from another. The rules are
in `rules`; reading the file and reporting its mistakes is in `file`.
"""

import hashlib
import json
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WithJsonSchema, model_validator

from swarmer.errors import SpecError, nearest
from swarmer.ports import REGISTRY
from swarmer.spec.flaws import BrokenRulesError, Flaw
from swarmer.spec.rules import address_flaws, registry_flaws, role_flaws
from swarmer.spec.stacks import STACKS, VAGRANT_FIELD, StackRules, VagrantSettings, WithStackKeys
from swarmer.spec.values import NAME_LENGTH, HostName, Registry, Server

PRIVATE_BLOCKS: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


#: The words by which consul's DNS finds the kind of a query, the last one in a name: as a datacenter, none is found.
#: Source: `dispatch` in consul's `agent/dns.go`, of 1.8 and later.
DNS_WORDS: Final = ("addr", "connect", "ingress", "node", "query", "service", "virtual")


def _known_stack(name: object) -> str:
    if not isinstance(name, str) or name not in STACKS:
        raise ValueError(f"must be one of {', '.join(STACKS)}")
    return str(name)


def _usable(network: IPv4Network) -> IPv4Network:
    at = ("admin_network",)
    if not any(network.subnet_of(block) for block in PRIVATE_BLOCKS):
        hint = f"choose one inside {', '.join(map(str, PRIVATE_BLOCKS))}"
        raise BrokenRulesError(Flaw(at, f"admin_network must be a private network, got {network}", hint))
    if network.prefixlen > 29:
        message = f"admin_network is too small for a cluster: {network}"
        raise BrokenRulesError(Flaw(at, message, "use a /29 or larger; a /24 is usual"))
    return network


def _resolvable(dc: str) -> str:
    if dc in DNS_WORDS:
        message = f"dc must not be a word that consul's DNS uses in its names, got {dc!r}"
        hint = f"use any name but {', '.join(DNS_WORDS)}, such as {dc}-1"
        raise BrokenRulesError(Flaw(("dc",), message, hint))
    return dc


class Spec(WithStackKeys):
    """One cluster, named `STACK:DC`."""

    admin_network: Annotated[
        IPv4Network,
        BeforeValidator(str),
        AfterValidator(_usable),
        WithJsonSchema({"type": "string", "pattern": "^[0-9.]+/[0-9.]+$"}),
    ] = Field(
        description="The private IPv4 network of the nodes, /29 or larger. Its first address belongs to the host.",
        examples=["192.168.101.0/24"],
    )
    stack: Annotated[str, BeforeValidator(_known_stack), WithJsonSchema({"type": "string", "enum": list(STACKS)})] = (
        Field(description="Where the nodes run.", examples=["nspawn"])
    )
    dc: Annotated[HostName, AfterValidator(_resolvable)] = Field(
        description="The consul datacenter, part of every DNS name.",
        examples=["dev"],
        json_schema_extra={"not": {"enum": [*DNS_WORDS]}},
    )
    servers: tuple[Server, ...] = Field(
        description="The nodes.",
        examples=[[{"name": "swarm-01", "memory": 3072, "cpus": 2, "ip": "192.168.101.101"}]],
    )
    internet: Annotated[bool, Strict()] = Field(
        default=False, description="Whether nodes can reach more than each other and the host.", examples=[True]
    )
    registry: Registry = Field(
        default_factory=Registry,
        description="The storage of the private registry; the nodes' disks if omitted.",
        examples=[{"storage": "s3", "bucket": "images-of-dev", "region": "eu-west-1"}],
    )
    vagrant: VagrantSettings = VAGRANT_FIELD

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if flaws := [
            *address_flaws(self.rules, self.admin_network, self.servers),
            *role_flaws(self.servers),
            *registry_flaws(self.registry),
        ]:
            raise BrokenRulesError(*flaws)
        return self

    @property
    def rules(self) -> StackRules:
        """What the stack rules of the file."""
        return STACKS[self.stack]

    @property
    def name(self) -> str:
        """`STACK:DC`, such as `nspawn:dev`."""
        return f"{self.stack}:{self.dc}"

    @property
    def domain(self) -> str:
        """`DC.STACK`. Nodes are named `NAME.node.DC.STACK`, services `NAME.service.DC.STACK`."""
        return f"{self.dc}.{self.stack}"

    @property
    def host_address(self) -> IPv4Address:
        """The host's own address: the first usable address of the admin network."""
        return self.admin_network[1]

    @property
    def consul_servers(self) -> tuple[Server, ...]:
        """The servers with a vote; their number is odd."""
        return tuple(server for server in self.servers if server.votes)

    @property
    def registry_nodes(self) -> tuple[Server, ...]:
        """The servers that store and serve the registry's content: the consul servers."""
        return self.consul_servers

    @property
    def registry_host(self) -> str:
        """The prefix of image names in the cluster's registry: `registry.service.DC.STACK:5000`."""
        return f"registry.service.{self.domain}:{REGISTRY.number}"

    @property
    def managers(self) -> tuple[Server, ...]:
        """The swarm managers, at least one; they may run tasks too."""
        return tuple(server for server in self.servers if server.manages)

    @property
    def workers(self) -> tuple[Server, ...]:
        """The servers that run tasks; they may be managers too."""
        return tuple(server for server in self.servers if server.works)

    @property
    def digest(self) -> str:
        """SHA-256 of the content in hex, equal for equal specs on every machine."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def server(self, name: str) -> Server:
        """The server of that name.

        Raises:
            SpecError: there is none.
        """
        for server in self.servers:
            if server.name == name:
                return server
        hint = nearest(name, [server.name for server in self.servers])
        raise SpecError(f"{self.name} has no node {name!r}", hint=hint)

    def with_stack(self, stack: str) -> Self:
        """The same cluster on another stack.

        Raises:
            SpecError: there is no such stack.
        """
        if stack not in STACKS:
            raise SpecError(f"unknown stack {stack!r}", hint=nearest(stack, list(STACKS)))
        return self._changed(stack=stack)

    def _changed(self, **changes: Any) -> Self:
        return self.model_validate(self.model_dump() | changes)


def for_worker(spec: Spec, worker: int) -> Spec:
    """A copy of `spec` for a pytest-xdist worker, with its own names and addresses.

    Args:
        spec: the cluster of a run without workers.
        worker: the worker's number, from 0. Its datacenter ends in `-gwN`. Its network is the `N + 1`-th network of
            the same size after that of `spec`, with every node at the same position in it.

    Raises:
        SpecError: that network would leave the private block, or the datacenter's name is too long.
    """
    network = spec.admin_network
    block = next(block for block in PRIVATE_BLOCKS if network.subnet_of(block))
    shift = (worker + 1) * network.num_addresses
    if int(network.broadcast_address) + shift > int(block.broadcast_address):
        message = f"{block} has no network for worker {worker} after {network}"
        raise SpecError(message, hint="use a smaller admin_network, or fewer workers")
    dc = f"{spec.dc}-gw{worker}"
    if len(dc) > NAME_LENGTH:
        raise SpecError(f"the datacenter of worker {worker} is too long: {dc}", hint="shorten dc")
    return spec._changed(
        dc=dc,
        admin_network=f"{network.network_address + shift}/{network.prefixlen}",
        servers=[server.model_dump() | {"ip": server.ip + shift} for server in spec.servers],
    )
