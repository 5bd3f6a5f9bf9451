"""The order of the chunks of an upload. Pure functions.

`docker-registry` appends whatever comes, without a look at `Content-Range`. It puts the number of bytes that arrived
into the address of an upload, signs it, and removes the upload when a client uses an earlier address, as it does when
an answer was lost. So a chunk is checked before `docker-registry` sees it, and the address is renewed.

Sources: the distribution spec, "Pushing a blob in chunks"; `registry/handlers/hmac.go` of distribution 2.8.
"""

import base64
import hmac
import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from swarmer.node.registry.errors import RegistryError

#: The parameter of an upload's address.
_STATE: Final = "_state"
_SIGNATURE: Final = 32

#: As in the spec; some clients send it as HTTP has it.
_RANGE: Final = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?")


def offset_of(state: str, secret: str) -> int | None:
    """The bytes that had arrived when an address was made; None if `docker-registry` didn't make it."""
    content = _content(state, secret)
    return int(content["Offset"]) if content else None


def renewed(uri: str, secret: str, arrived: int) -> str:
    """The address of an upload, with the number of bytes that have arrived since; unchanged if it isn't valid."""
    path, _, query = uri.partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    content = _content(next((value for name, value in parameters if name == _STATE), ""), secret)
    if content is None or content["Offset"] == arrived:
        return uri
    text = json.dumps({**content, "Offset": arrived}, separators=(",", ":")).encode()
    state = base64.urlsafe_b64encode(_signature(text, secret) + text).decode()
    return f"{path}?{urlencode([*((name, value) for name, value in parameters if name != _STATE), (_STATE, state)])}"


def check_order(content_range: str, length: int, *, known: int | None, arrived: int) -> None:
    """Check that a chunk is the next one.

    Args:
        content_range: the header of that name; empty if there is none.
        length: of the chunk in bytes; 0 when it is unknown.
        known: the bytes that had arrived when the client got the address that it uses; None if that isn't known.
        arrived: the bytes that have arrived.

    Raises:
        RegistryError: it isn't, or its header can't be true.
    """
    start = known
    if content_range:
        found = _RANGE.fullmatch(content_range.strip())
        if not found:
            raise RegistryError(400, "BLOB_UPLOAD_INVALID", f"{content_range[:80]!r} is not a range of bytes")
        start, end = int(found[1]), int(found[2])
        if length and end - start + 1 != length:
            raise RegistryError(400, "SIZE_INVALID", f"the range {found[0]} does not have {length} bytes")
    if start is not None and start != arrived:
        message = (
            f"{arrived} bytes have arrived, so the next chunk begins with byte {arrived}; GET tells where to send it"
        )
        raise RegistryError(416, "BLOB_UPLOAD_INVALID", message)


def _content(state: str, secret: str) -> dict[str, Any] | None:
    try:
        token = base64.urlsafe_b64decode(state)
        signature, text = token[:_SIGNATURE], token[_SIGNATURE:]
        if not hmac.compare_digest(signature, _signature(text, secret)):
            return None
        content: dict[str, Any] = json.loads(text)
        return content
    except ValueError:
        return None


def _signature(text: bytes, secret: str) -> bytes:
    return hmac.digest(secret.encode(), text, "sha256")
