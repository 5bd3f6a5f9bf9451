"""Who may do what. Pure functions: the time is given to them.

A client presents a certificate of the registry plane, a user and password, or a token that it was given for one of
these. `docker` sends credentials only to a registry that answers its first request with 401, and from then on with each
request. So the first request with a node's certificate is refused too, and the token holds what the client may do.
`containerd` sends them to a registry that answers any request with 401, so a push by a certificate alone is, too.

Sources: the distribution project's pages on token authentication.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.settings import Settings

#: Seconds that a token is valid; a client then asks for another one.
TOKEN_LIFETIME: Final = 300

#: Seconds by which the clocks of two nodes may differ; a token of one is valid on the other all the same.
CLOCKS_DIFFER: Final = 2 * 3600

#: The common name of the certificate that may push.
CLIENT_NAME: Final = "swarmer-client"


class Right(IntEnum):
    """Each includes those before it."""

    NONE = 0
    PULL = 1
    PUSH = 2


@dataclass(frozen=True)
class ClientCredentials:
    """What a client presents, as nginx passes it on.

    Attributes:
        verified: nginx's verdict on the certificate, `SUCCESS` when a CA of the cluster signed it.
        subject: of the certificate, as in RFC 2253.
        issuer: of the certificate.
        authorization: the header of that name.
    """

    verified: str = ""
    subject: str = ""
    issuer: str = ""
    authorization: str = ""


def node_of(credentials: ClientCredentials, settings: Settings) -> str | None:
    """The node whose certificate this is; None when the registry plane of this cluster has no such node certificate."""
    name = _common_name(credentials, settings)
    return name.removesuffix(".") if name and name.endswith(".") else None


def right_of(credentials: ClientCredentials, settings: Settings, now: float) -> Right:
    """What the certificate and the credentials together allow.

    Raises:
        RegistryError: the credentials are wrong, even if the certificate is right.
    """
    return max(_by_certificate(credentials, settings), _by_authorization(credentials.authorization, settings, now))


def token(right: Right, settings: Settings, now: float) -> str:
    """A token that allows this for `TOKEN_LIFETIME` seconds, on every registry node."""
    payload = json.dumps({"right": int(right), "until": int(now) + TOKEN_LIFETIME}).encode()
    return f"{_encoded(payload)}.{_encoded(_signature(payload, settings))}"


def challenge(host: str, settings: Settings, error: str = "") -> Mapping[str, str]:
    """The header with the address at which a client gets a token."""
    service = f"registry.service.{settings.domain}"
    words = f'Bearer realm="https://{host}/token",service="{service}"'
    return {"WWW-Authenticate": words + (f',error="{error}"' if error else "")}


def check(needed: Right, credentials: ClientCredentials, settings: Settings, now: float, host: str) -> Right:
    """What this client may do, which is at least what it needs.

    Raises:
        RegistryError: it may less: 401 to a client that sent no credentials beside its certificate, 403 to any other.
    """
    try:
        right = right_of(credentials, settings, now)
    except RegistryError as error:
        raise RegistryError(401, error.code, error.message, challenge(host, settings, "invalid_token")) from None
    if right >= needed:
        return right
    if right is Right.NONE:
        raise RegistryError(401, "UNAUTHORIZED", "authentication is required", challenge(host, settings))
    message = "a node's certificate may only pull; to push, use the client certificate or `docker login`"
    if not credentials.authorization:
        raise RegistryError(401, "UNAUTHORIZED", message, challenge(host, settings))
    raise RegistryError(403, "DENIED", message)


def check_for_token(credentials: ClientCredentials, settings: Settings, now: float, host: str) -> Right:
    """What a new token allows: what this client may do without a token. Else tokens could be renewed for ever.

    Raises:
        RegistryError: as `check`.
    """
    if credentials.authorization.lower().startswith("bearer "):
        credentials = replace(credentials, authorization="")
    return check(Right.PULL, credentials, settings, now, host)


def check_peer(credentials: ClientCredentials, settings: Settings) -> None:
    """Let only the other nodes of the registry pass.

    Raises:
        RegistryError: it isn't one.
    """
    if node_of(credentials, settings) not in settings.nodes:
        raise RegistryError(403, "DENIED", "only the registry's own nodes may ask for this")


def _by_certificate(credentials: ClientCredentials, settings: Settings) -> Right:
    name = _common_name(credentials, settings)
    if name == CLIENT_NAME:
        return Right.PUSH
    return Right.PULL if node_of(credentials, settings) else Right.NONE


def _common_name(credentials: ClientCredentials, settings: Settings) -> str | None:
    """Of a certificate that the registry's own CA signed: the root CA vouches for other planes too."""
    organization = f",O={settings.organization}"
    if credentials.verified != "SUCCESS" or credentials.issuer != f"CN=registry CA{organization}":
        return None
    if not (credentials.subject.startswith("CN=") and credentials.subject.endswith(organization)):
        return None
    return credentials.subject.removeprefix("CN=").removesuffix(organization)


def _by_authorization(header: str, settings: Settings, now: float) -> Right:
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "":
            return Right.NONE
        case "basic":
            return _by_password(value.strip(), settings)
        case "bearer":
            return _by_token(value.strip(), settings, now)
        case _:
            raise RegistryError(401, "UNAUTHORIZED", f"unknown authentication scheme: {scheme[:20]}")


def _by_password(value: str, settings: Settings) -> Right:
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        raise RegistryError(401, "UNAUTHORIZED", "malformed credentials") from None
    digest = hashlib.sha256(password.encode()).hexdigest()
    if not (hmac.compare_digest(digest, settings.password_sha256) and user == settings.user):
        raise RegistryError(401, "UNAUTHORIZED", "wrong user or password")
    return Right.PUSH


def _by_token(value: str, settings: Settings, now: float) -> Right:
    try:
        payload, signature = map(_decoded, value.split("."))
    except ValueError:
        raise RegistryError(401, "UNAUTHORIZED", "malformed token") from None
    if not hmac.compare_digest(signature, _signature(payload, settings)):
        raise RegistryError(401, "UNAUTHORIZED", "invalid token")
    content = json.loads(payload)
    if now >= content["until"] + CLOCKS_DIFFER:
        raise RegistryError(401, "UNAUTHORIZED", "expired token")
    return Right(content["right"])


def _signature(payload: bytes, settings: Settings) -> bytes:
    return hmac.digest(settings.secret.encode(), payload, "sha256")


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    """Strictly what `_encoded` made: another spelling of the same bytes is not accepted."""
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encoded(content) != text:
        raise ValueError(text)
    return content
