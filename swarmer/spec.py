"""The spec: what `servers.yml` promises, as immutable values that can't be wrong.

Every rule about names, addresses and roles holds for a `Spec` that exists, also for one that was derived
from another. How the file is read, and its flaws are told, is in `spec_file`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
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

from swarmer.errors import SpecError
from swarmer.ports import REGISTRY

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


@dataclass(frozen=True)
class Flaw:
    """One thing wrong with a spec.

    Attributes:
        at: the keys and indexes that lead to it, as in `("servers", 1, "ip")`.
        message: what is wrong, one sentence.
        hint: the way out.
    """

    at: tuple[str | int, ...]
    message: str
    hint: str


class BrokenRulesError(ValueError):
    """Values that are readable one by one break the rules of a cluster."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("\n".join(f"{flaw.message}; {flaw.hint}" for flaw in flaws))
        self.flaws = flaws


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


def nearest(word: str, choices: Sequence[str]) -> str:
    """A hint that names the choice most like `word`, or else all of them."""
    close = get_close_matches(word.lower(), choices, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(choices)}"


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
        if flaws := [*_placement_flaws(self), *_role_flaws(self), *_registry_flaws(self.registry)]:
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


def _placement_flaws(spec: Spec) -> Iterator[Flaw]:
    network = spec.admin_network
    reserved = {
        network.network_address: "the network's own address",
        network.broadcast_address: "the network's broadcast address",
        spec.host_address: "the host's own address",
    }
    taken = {server.ip for server in spec.servers}
    free = next((ip for ip in islice(network.hosts(), 1, None) if ip not in taken), None)
    elsewhere = f"{free} is free" if free else f"{network} is full: take a larger admin_network"
    names: set[str] = set()
    owners: dict[IPv4Address, str] = {}
    for index, (name, ip) in enumerate((server.name, server.ip) for server in spec.servers):
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


def _role_flaws(spec: Spec) -> Iterator[Flaw]:
    at = ("servers",)
    voters = [index for index, server in enumerate(spec.servers) if server.consul is ConsulRole.SERVER]
    if not spec.servers:
        yield Flaw(at, "there are no servers", "list one at least, better three")
        return
    if not voters:
        yield Flaw(at, "no node is a consul server", "give an odd number of them `consul: server`")
    elif len(voters) % 2 == 0:
        message = f"{spec.servers[voters[-1]].name} makes the number of consul servers even, {len(voters)}"
        hint = "an odd number survives as many losses: make one more a `consul: server`, or one less"
        yield Flaw(("servers", voters[-1], "consul"), message, hint)
    if not spec.managers:
        yield Flaw(at, "no node is a swarm manager", "give one of them `swarm: both`")


def _registry_flaws(registry: Registry) -> Iterator[Flaw]:
    given = [key for key in ("bucket", "region", "endpoint", "credentials") if getattr(registry, key) is not None]
    if registry.storage == "filesystem" and given:
        message = f"{given[0]} of the registry means nothing on the nodes' disks"
        yield Flaw(("registry", given[0]), message, f"remove `{given[0]}`, or choose `storage: s3`")
    for key in ("bucket", "region"):
        if registry.storage == "s3" and key not in given:
            yield Flaw(("registry",), f"{key} of the registry is missing", f"name the {key} that `storage: s3` uses")


def advice(spec: Spec) -> list[str]:
    """What is allowed but unwise, one sentence each."""
    sentences: list[str] = []
    managers = len(spec.managers)
    if len(spec.servers) < 3:
        sentences.append("one consul server below three nodes: for development only")
    elif len(spec.consul_servers) == 1:
        sentences.append("one consul server: its loss stops the cluster; of three, any one may be lost")
    if managers % 2 == 0:
        sentences.append(f"{managers} swarm managers survive no more losses than {managers - 1}")
    return sentences


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
