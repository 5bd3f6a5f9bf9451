"""What a spec is made of: one server, the registry, roles and labels."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

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


def _number(at_least: int) -> WithJsonSchema:
    number = {"type": "integer", "minimum": at_least, "maximum": 10**9 - 1}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,9}$"}]})


HostName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$")]
OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=255)]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Value):
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
    def votes(self) -> bool:
        """Whether it has a vote in consul's quorum."""
        return self.consul is ConsulRole.SERVER

    @property
    def manages(self) -> bool:
        """Whether it manages the swarm, whether it runs tasks or not."""
        return self.swarm is not SwarmRole.AGENT

    @property
    def works(self) -> bool:
        """Whether it runs tasks, whether it manages the swarm as well or not."""
        return self.swarm is not SwarmRole.MANAGER

    @property
    def node_labels(self) -> dict[str, str]:
        """Its labels in the swarm: `labels`, and its role as `swarm`, unless one of them has that name."""
        return {"swarm": str(self.swarm), **self.labels}


class Registry(Value):
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
