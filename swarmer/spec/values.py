"""The parts of a spec: servers, the registry, roles and labels."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from swarmer.spec.stacks import VAGRANT_FIELD, VagrantSettings, Value, WithStackKeys

# RFC 1123, with at least one letter: `ssh 1` would connect to 0.0.0.1.
NAME_PATTERN: Final = r"^([a-z]|[0-9][0-9-]*[a-z])([a-z0-9-]*[a-z0-9])?$"
NAME_LENGTH: Final = 63

#: The names of the loopback addresses in `/etc/hosts`: a node of such a name would not resolve it to its own address.
LOOPBACK_NAMES: Final = ("localhost", "ip6-localhost", "ip6-loopback")

#: In MiB.
MIN_MEMORY: Final = 256
MIN_CPUS: Final = 1

Storage = Literal["filesystem", "s3"]
STORAGES: Final[tuple[Storage, ...]] = get_args(Storage)


class ConsulRole(StrEnum):
    """A `server` votes in consul's quorum, an `agent` doesn't."""

    SERVER = "server"
    AGENT = "agent"


class SwarmRole(StrEnum):
    """A `manager` schedules, an `agent` runs tasks; `both` does both."""

    MANAGER = "manager"
    AGENT = "agent"
    BOTH = "both"


class Labels(Mapping[str, str]):
    """An immutable, hashable mapping."""

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
    raise ValueError("must be a number with at most nine digits")


def _number(at_least: int) -> WithJsonSchema:
    number = {"type": "integer", "minimum": at_least, "maximum": 10**9 - 1}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$"}]})


HostName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$")]
OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=255)]


class Server(WithStackKeys):
    """One node of a cluster: `memory` in MiB, `ip` in the cluster's admin network."""

    name: HostName = Field(
        description="The node's host name, unique in the cluster.",
        examples=["swarm-01"],
        json_schema_extra={"not": {"enum": [*LOOPBACK_NAMES]}},
    )
    memory: Annotated[int, Field(ge=MIN_MEMORY), BeforeValidator(_digits), _number(MIN_MEMORY)] = Field(
        description="Memory in MiB, with or without quotes.", examples=[3072, "3072"]
    )
    cpus: Annotated[int, Field(ge=MIN_CPUS), BeforeValidator(_digits), _number(MIN_CPUS)] = Field(
        description="Number of processors, with or without quotes.", examples=[2, "2"]
    )
    ip: Annotated[IPv4Address, BeforeValidator(str), WithJsonSchema({"type": "string", "format": "ipv4"})] = Field(
        description="The node's address in admin_network.", examples=["192.168.101.101"]
    )
    consul: ConsulRole = Field(
        description="Servers vote; their number must be odd. If no entry sets this, the first nodes are servers: "
        "one of one or two nodes, three of three to six, five of seven or more. If some entries set it, all "
        "others are agents.",
        examples=["server"],
    )
    swarm: SwarmRole = Field(
        description="Managers schedule, agents run tasks. If no entry sets this, consul servers are `both` and "
        "all others agents. If some entries set it, all others are agents.",
        examples=["both"],
    )
    labels: Annotated[Mapping[Label, OneLine], AfterValidator(Labels), PlainSerializer(dict)] = Field(
        default_factory=Labels,
        description="The node's labels, a mapping of text to text.",
        examples=[{"disk": "ssd"}],
        json_schema_extra={"additionalProperties": False},
    )
    vagrant: VagrantSettings = VAGRANT_FIELD

    @property
    def votes(self) -> bool:
        """Whether the node votes in consul's quorum."""
        return self.consul is ConsulRole.SERVER

    @property
    def manages(self) -> bool:
        """Whether the node is a swarm manager; it may run tasks too."""
        return self.swarm is not SwarmRole.AGENT

    @property
    def works(self) -> bool:
        """Whether the node runs tasks; it may be a manager too."""
        return self.swarm is not SwarmRole.MANAGER

    @property
    def node_labels(self) -> dict[str, str]:
        """The node's labels in the swarm: `labels`, and its role as `swarm` unless a label has that name."""
        return {"swarm": str(self.swarm), **self.labels}


class Registry(Value):
    """Where the private registry stores its content."""

    storage: Storage = Field(
        default="filesystem",
        description="`filesystem`: replicated on the disks of the consul servers; `s3`: in one shared bucket.",
        examples=["s3"],
    )
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = Field(
        default=None, description="The name of an existing bucket.", examples=["images-of-dev"]
    )
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = Field(
        default=None, description="The region of the bucket.", examples=["eu-west-1"]
    )
    endpoint: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]+)?$")] | None = Field(
        default=None, description="The address of an S3 service other than AWS.", examples=["https://s3.example.org"]
    )
    credentials: Annotated[str, Field(pattern=r"^\S+$")] | None = Field(
        default=None,
        description="A file of mode 0600 with access key and secret, in the format of AWS' own tools. If omitted, the "
        "nodes use their instance role.",
        examples=["~/.aws/credentials"],
    )
