"""The spec: what `servers.yml` promises, as immutable values that can't be wrong.

Every rule about names, addresses and roles holds for a `Spec` that exists, also for one that was derived
from another. The rules are in `spec_rules`; how the file is read, and its flaws are told, in `spec_file`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
    model_validator,
)

from swarmer.errors import SpecError, nearest
from swarmer.ports import REGISTRY
from swarmer.spec_rules import BrokenRulesError, Flaw, placement_flaws, registry_flaws, role_flaws

Stack = Literal["nspawn", "vagrant", "aws"]
STACKS: Final[tuple[Stack, ...]] = get_args(Stack)
PRIVATE_BLOCKS: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))

# RFC 1123, and a letter somewhere: `ssh 1` would go to 0.0.0.1.
NAME_PATTERN: Final = r"^([a-z]|[0-9][0-9-]*[a-z])([a-z0-9-]*[a-z0-9])?$"
NAME_LENGTH: Final = 63


class ConsulRole(StrEnum):
    """A `server` has a vote in consul's quorum, an `agent` has none."""

    SERVER = "server"
    AGENT = "agent"


class SwarmRole(StrEnum):
    """A `manager` schedules, an `agent` runs tasks; `both` does both."""

    MANAGER = "manager"
    AGENT = "agent"
    BOTH = "both"


class Labels(Mapping[str, str]):
    """A mapping that can't be changed, and can be hashed."""

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def _digits(value: object) -> int:
    if re.fullmatch(r"[0-9]{1,9}", str(value)):
        return int(str(value))
    raise ValueError("no number of up to nine digits")


def _usable(network: IPv4Network) -> IPv4Network:
    at = ("admin_network",)
    if not any(network.subnet_of(block) for block in PRIVATE_BLOCKS):
        hint = f"take one inside {', '.join(map(str, PRIVATE_BLOCKS))}"
        raise BrokenRulesError(Flaw(at, f"admin_network is {network}, no private network", hint))
    if network.prefixlen > 29:
        message = f"admin_network is {network}, too small for a cluster"
        raise BrokenRulesError(Flaw(at, message, "take a /29 or larger; a /24 is usual"))
    return network


def _number(at_least: int) -> WithJsonSchema:
    number = {"type": "integer", "minimum": at_least, "maximum": 10**9 - 1}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$"}]})


HostName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$")]
OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=255)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(_Value):
    """One node of a cluster: `memory` in MiB, `ip` in the cluster's admin network."""

    name: HostName = Field(description="The node's host name, unique in the cluster.", examples=["swarm-01"])
    memory: Annotated[int, Field(ge=256), BeforeValidator(_digits), _number(256)] = Field(
        description="Memory in MiB, with or without quotes.", examples=[3072, "3072"]
    )
    cpus: Annotated[int, Field(ge=1), BeforeValidator(_digits), _number(1)] = Field(
        description="Number of processors, with or without quotes.", examples=[2, "2"]
    )
    ip: Annotated[IPv4Address, BeforeValidator(str), WithJsonSchema({"type": "string", "format": "ipv4"})] = Field(
        description="The node's address in admin_network.", examples=["192.168.101.101"]
    )
    consul: ConsulRole = Field(
        description="Servers vote, and their number is odd. Where no entry has it, the first nodes are "
        "servers: one below three nodes, three from three on, five from seven on. Where some have it, "
        "others are agents.",
        examples=["server"],
    )
    swarm: SwarmRole = Field(
        description="Managers schedule, agents run tasks. Where no entry has it, consul servers are "
        "`both`, others agents. Where some have it, others are agents.",
        examples=["both"],
    )
    labels: Annotated[Mapping[Label, OneLine], AfterValidator(Labels), PlainSerializer(dict)] = Field(
        default_factory=Labels,
        description="Labels of the node, text to text.",
        examples=[{"disk": "ssd"}],
        json_schema_extra={"additionalProperties": False},
    )
    box: Annotated[str, Field(pattern=r"^\S+$")] | None = Field(
        default=None, description="The node's vagrant box.", examples=["yanndegat/swarmer"]
    )

    @property
    def node_labels(self) -> dict[str, str]:
        """Its labels in the swarm: `labels`, and its role as `swarm`, unless one of them has that name."""
        return {"swarm": str(self.swarm), **self.labels}


class Registry(_Value):
    """Where the private registry keeps its content."""

    storage: Literal["filesystem", "s3"] = Field(
        default="filesystem",
        description="`filesystem`: on the disks of the consul servers, with copies; `s3`: in one bucket for all.",
        examples=["s3"],
    )
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = Field(
        default=None, description="The bucket, which has to be there.", examples=["images-of-dev"]
    )
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = Field(
        default=None, description="The region of the bucket.", examples=["eu-west-1"]
    )
    endpoint: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]+)?$")] | None = Field(
        default=None, description="Where S3 is, if not at AWS.", examples=["https://s3.example.org"]
    )
    credentials: Annotated[str, Field(pattern=r"^\S+$")] | None = Field(
        default=None,
        description="A file of mode 0600 with access key and secret, in the format of AWS' own tools. Without it, the "
        "nodes' instance role is used.",
        examples=["~/.aws/credentials"],
    )


class Spec(_Value):
    """One cluster, called `STACK:DC`."""

    admin_network: Annotated[
        IPv4Network,
        BeforeValidator(str),
        AfterValidator(_usable),
        WithJsonSchema({"type": "string", "pattern": "^[0-9.]+/[0-9.]+$"}),
    ] = Field(
        description="The private IPv4 network of the nodes, /29 or larger. The first address is the host's.",
        examples=["192.168.101.0/24"],
    )
    stack: Stack = Field(description="Where the nodes run.", examples=["nspawn"])
    dc: HostName = Field(description="The consul datacenter, part of every DNS name.", examples=["dev"])
    servers: tuple[Server, ...] = Field(
        description="The nodes.",
        examples=[[{"name": "swarm-01", "memory": 3072, "cpus": 2, "ip": "192.168.101.101"}]],
    )
    internet: Annotated[bool, Strict()] = Field(
        default=False, description="Whether nodes reach more than each other and the host.", examples=[True]
    )

    registry: Registry = Field(
        default_factory=Registry,
        description="The storage of the private registry; the nodes' disks where it is left out.",
        examples=[{"storage": "s3", "bucket": "images-of-dev", "region": "eu-west-1"}],
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if flaws := [*placement_flaws(self), *role_flaws(self), *registry_flaws(self.registry)]:
            raise BrokenRulesError(*flaws)
        return self

    @property
    def name(self) -> str:
        """`STACK:DC`, such as `nspawn:dev`."""
        return f"{self.stack}:{self.dc}"

    @property
    def domain(self) -> str:
        """`DC.STACK`: nodes are `NAME.node.DC.STACK`, services `NAME.service.DC.STACK`."""
        return f"{self.dc}.{self.stack}"

    @property
    def host_address(self) -> IPv4Address:
        """The host's own address: the first usable one of the admin network."""
        return self.admin_network[1]

    @property
    def consul_servers(self) -> tuple[Server, ...]:
        """Those with a vote; an odd number of them."""
        return tuple(server for server in self.servers if server.consul is ConsulRole.SERVER)

    @property
    def registry_nodes(self) -> tuple[Server, ...]:
        """Those that keep the registry's content and answer for it: the consul servers."""
        return self.consul_servers

    @property
    def registry_host(self) -> str:
        """How images of the cluster's registry begin: `registry.service.DC.STACK:5000`."""
        return f"registry.service.{self.domain}:{REGISTRY.number}"

    @property
    def managers(self) -> tuple[Server, ...]:
        """Swarm managers, whether they run tasks or not; at least one."""
        return tuple(server for server in self.servers if server.swarm is not SwarmRole.AGENT)

    @property
    def workers(self) -> tuple[Server, ...]:
        """Those that run tasks, whether they manage the swarm as well or not."""
        return tuple(server for server in self.servers if server.swarm is not SwarmRole.MANAGER)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex: equal for equal specs, on every machine."""
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
            raise SpecError(f"there is no stack {stack!r}", hint=nearest(stack, STACKS))
        return self._changed(stack=stack)

    def _changed(self, **changes: Any) -> Self:
        return self.model_validate(self.model_dump() | changes)


def for_worker(spec: Spec, worker: int) -> Spec:
    """A cluster like this one for a pytest-xdist worker, sharing no name and no address with it.

    Args:
        spec: the cluster of a run without workers.
        worker: the worker's number, from 0. Its datacenter ends in `-gwN`, its network is the `N + 1`-th
            of the same size behind that of `spec`, with every node at the same place in it.

    Raises:
        SpecError: that network would leave the private block, or the datacenter's name is too long.
    """
    network = spec.admin_network
    block = next(block for block in PRIVATE_BLOCKS if network.subnet_of(block))
    shift = (worker + 1) * network.num_addresses
    if int(network.broadcast_address) + shift > int(block.broadcast_address):
        message = f"worker {worker} finds no network in {block} behind {network}"
        raise SpecError(message, hint="take a smaller admin_network, or fewer workers")
    dc = f"{spec.dc}-gw{worker}"
    if len(dc) > NAME_LENGTH:
        raise SpecError(f"the datacenter of worker {worker} is too long: {dc}", hint="shorten dc")
    return spec._changed(
        dc=dc,
        admin_network=f"{network.network_address + shift}/{network.prefixlen}",
        servers=[server.model_dump() | {"ip": server.ip + shift} for server in spec.servers],
    )
