"""What `servers.yml` says differently for each stack: keys of its own, and addresses that no node can have."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Value(BaseModel):
    """Part of a spec: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VagrantSettings(Value):
    """The key `vagrant`, of a server or of all of them."""

    box: Annotated[str, Field(pattern=r"^\S+$")] | None = Field(
        default=None, description="The vagrant box, if not swarmer's own.", examples=["yanndegat/swarmer"]
    )


#: The field of a mapping that has the key `vagrant`.
VAGRANT_FIELD: Final[Any] = Field(
    default_factory=VagrantSettings,
    description="Settings of the stack vagrant.",
    examples=[{"box": "yanndegat/swarmer"}],
)


class WithStackKeys(Value):
    """A mapping of `servers.yml` that has a key for each stack with settings of its own."""

    @model_validator(mode="before")
    @classmethod
    def _older_spelling(cls, data: Any) -> Any:
        """`box`, an older spelling of `vagrant: {box: …}`."""
        if not isinstance(data, dict) or "box" not in data:
            return data
        rest = {key: value for key, value in data.items() if key != "box"}
        given = rest.get("vagrant", {})
        if data["box"] is not None and isinstance(given, dict):
            rest["vagrant"] = {"box": data["box"], **given}
        return rest


@dataclass(frozen=True)
class StackRules:
    """The rules of one stack for the file.

    Attributes:
        reserved: what the first addresses of the admin network are used for; those of nodes come after.
    """

    reserved: tuple[str, ...]

    def reserved_addresses(self, network: IPv4Network) -> Mapping[IPv4Address, str]:
        """The addresses that no node can have, with what they are used for."""
        first = {network[place]: use for place, use in enumerate(self.reserved)}
        return {**first, network.broadcast_address: "the network's broadcast address"}

    def places(self, network: IPv4Network) -> range:
        """The places in the network of the addresses that nodes can have."""
        return range(len(self.reserved), network.num_addresses - 1)


_BRIDGED: Final = StackRules(("the network's own address", "the host's own address"))

#: Source: AWS' page on the sizing of subnets.
_AWS: Final = StackRules(("the network's own address", "the router's address", "AWS' DNS server", "a reserved address"))

#: The stacks that `servers.yml` can name. Their classes are in `swarmer.stacks`.
STACKS: Final[Mapping[str, StackRules]] = {"nspawn": _BRIDGED, "vagrant": _BRIDGED, "aws": _AWS}
