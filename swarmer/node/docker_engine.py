"""The HTTP API of a docker engine, for our programs on the nodes; with no package but Python's own.

Source: the Engine API reference, 1.45.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from swarmer.node.slowness import scaled
from swarmer.node.unix_http import UnixHTTPConnection

SOCKET: Final = "unix:///run/docker.sock"

#: The schemes of URLs at which an engine can be reached.
SCHEMES: Final = ("unix", "tcp")


class EngineError(Exception):
    """The engine doesn't answer, or answers with an error."""


class EngineRefused(EngineError):
    """The engine answers with an error."""


class NotFound(EngineRefused):
    """The engine doesn't have what it was asked for."""


class Engine:
    """A docker engine. Each call has a connection of its own, so threads can share an engine.

    Args:
        url: `unix://PATH` or `tcp://HOST:PORT`.
    """

    def __init__(self, url: str = SOCKET) -> None:
        self.url = url

    def call(self, method: str, path: str, body: object = None, *, timeout: float = 5) -> Any:
        """The answer of the engine, from JSON.

        Args:
            timeout: seconds, more on a slow node.

        Raises:
            EngineError: it doesn't answer in time.
            NotFound, EngineRefused: it answers with an error.
        """
        connection = self.connection(timeout)
        try:
            text = ask(connection, method, path, body).read()
            return json.loads(text) if text.strip() else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"docker doesn't answer: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def swarm_state(self) -> str:
        """`inactive`, `pending`, `error`, `locked`, `active/worker` or `active/manager`.

        It costs the engine next to nothing; for `/info`, it runs two programs.

        Raises:
            EngineError: it doesn't answer in time.
        """
        connection = self.connection(timeout=5)
        try:
            return ask(connection, "HEAD", "/_ping", None).headers.get("Swarm", "")
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"docker doesn't answer: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def events(self, query: str) -> Iterator[Mapping[str, Any]]:
        """The events of the engine, as they happen. Before the first event, yields an empty one: the subscription.

        Args:
            query: of the request, such as `filters=…`.

        Raises:
            EngineError: it doesn't answer, or the stream breaks.
        """
        connection = self.connection(timeout=5)
        try:
            connection.connect()
            connection.sock.settimeout(None)
            answer = ask(connection, "GET", f"/events?{query}", None)
            yield {}
            while line := answer.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"the events of docker end: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """A connection, not yet open; the caller closes it."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return UnixHTTPConnection(parts.path, timeout=scaled(timeout))
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=scaled(timeout))


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object) -> http.client.HTTPResponse:
    """The answer to a request, yet to be read.

    Raises:
        NotFound, EngineRefused: it is an error.
        OSError, http.client.HTTPException: there is none.
    """
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status < 300:
        return answer
    error = NotFound if answer.status == 404 else EngineRefused
    raise error(f"{method} {path}: {answer.status} {_message(answer.read())}")


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip()
