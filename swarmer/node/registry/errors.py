"""Saying no in the words of the distribution spec."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)
class RegistryError(Exception):
    """A request is answered with an error.

    Attributes:
        status: of HTTP.
        code: of the distribution spec, such as `NAME_INVALID`.
        message: one sentence, for the person behind the client.
        headers: that go with the answer.
    """

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def body(self) -> bytes:
        return json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode() + b"\n"

    @property
    def for_nginx(self) -> Mapping[str, str]:
        """The headers by which the gate tells nginx what to answer; see `location @refused` of nginx.conf."""
        told = {"Status": str(self.status), "Body": self.body.decode().strip(), **self.headers}
        return {f"X-Error-{name}": value for name, value in told.items()}


def unavailable(message: str) -> RegistryError:
    """Not now: the client may try again."""
    return RegistryError(503, "UNAVAILABLE", message, {"Retry-After": "1"})
