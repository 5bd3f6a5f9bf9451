"""Errors in the format of the distribution spec."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)
class RegistryError(Exception):
    """The error that a request is answered with.

    Attributes:
        status: of HTTP.
        code: of the distribution spec, such as `NAME_INVALID`.
        message: one sentence, for the user of the client.
        headers: of the answer.
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
        """The error as headers: nginx's `auth_request` knows no status but 401 and 403, and passes no body on.

        `location @refused` of nginx.conf makes the answer from them.
        """
        parts = {"Status": str(self.status), "Body": self.body.decode().strip(), **self.headers}
        return {f"X-Error-{name}": value for name, value in parts.items()}


def unavailable(message: str) -> RegistryError:
    """The error for what may succeed when the client tries again."""
    return RegistryError(503, "UNAVAILABLE", message, {"Retry-After": "1"})
