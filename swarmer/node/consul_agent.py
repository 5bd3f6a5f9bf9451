"""A consul agent, most often this node's own, for the programs of ours that run on nodes: no package but Python's."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmer.node.patience import patient

#: Where cloud-init puts all that a node gets to know.
SEED = Path("/etc/swarmer")


class Refused(Exception):
    """Consul is not ready, or says no."""


@dataclass(frozen=True)
class Answer:
    """What consul answered, whatever that was."""

    status: int
    headers: Mapping[str, str]
    text: bytes

    @property
    def index(self) -> int:
        """For the next question with `?index=`, which is answered when something has changed."""
        return int(self.headers.get("X-Consul-Index") or 0)

    def json(self) -> Any:
        return json.loads(self.text) if self.text else None


def removal(node: str, service: Mapping[str, Any]) -> dict[str, Any]:
    """The step of a transaction that removes a service from the catalog, unless it was changed meanwhile.

    Consul may carry out a write long after its client has given it up, as during an election. The token has to have
    the right to write the service.

    Args:
        service: as `catalog/node/NODE` has it, with its `ModifyIndex`.
    """
    entry = {name: service[name] for name in ("ID", "Service", "ModifyIndex")}
    return {"Service": {"Verb": "delete-cas", "Node": node, "Service": entry}}


def own_token(service: str) -> str:
    """The ACL token of a service on this node."""
    return (SEED / "tokens" / service).read_text().strip()


class Agent:
    """The agent's HTTP API, over one connection that is kept open. Not to be shared by threads.

    Args:
        timeout: seconds until an agent that says nothing is given up, more on a slow node.
    """

    def __init__(self, token: str, *, host: str = "127.0.0.1", timeout: float = 5) -> None:
        context = ssl.create_default_context(cafile=str(SEED / "consul/ca-chain.pem"))
        context.load_cert_chain(SEED / "consul/node.pem", SEED / "consul/node-key.pem")
        self._timeout = patient(timeout)
        self._connection = http.client.HTTPSConnection(host, 8500, context=context)
        self._headers = {"X-Consul-Token": token}

    def ask(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> Answer:
        """What consul answers.

        Args:
            body: is sent as JSON; bytes as they are.
            timeout: another one than the agent's, for this question.

        Raises:
            Refused: it doesn't answer.
        """
        self._connection.timeout = self._timeout if timeout is None else patient(timeout)
        if self._connection.sock:
            self._connection.sock.settimeout(self._connection.timeout)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body)
            self._connection.request(method, f"/v1/{path}", content, self._headers)
            answer = self._connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Refused(f"consul doesn't answer: {error}") from error

    def close(self) -> None:
        """End the connection; the next question opens another."""
        self._connection.close()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """What consul answers, from JSON.

        Raises:
            Refused: it doesn't answer, or not with success.
        """
        answer = self.ask(method, path, body)
        if answer.status != 200:
            raise Refused(f"{method} {path}: {answer.status} {answer.text.decode(errors='replace').strip()}")
        return answer.json()

    def knows_us(self) -> bool:
        """Whether consul is there and accepts our token.

        One who waits for that while a cluster forms is cheaper than many who are refused.
        """
        try:
            self.call("GET", "acl/token/self")
        except Refused:
            return False
        return True

    def read(self, path: str, *, index: int = 0, wait: float = 0) -> tuple[Any, int]:
        """What consul has, None where there is nothing, and the index of that state.

        Args:
            index: answer only once there is another state than this one, or when `wait` seconds are over. The
                agent's time-out must be longer.

        Raises:
            Refused: it doesn't answer, or not with success.
        """
        if wait:
            path += f"{'&' if '?' in path else '?'}index={index}&wait={round(wait * 1000)}ms"
        answer = self.ask("GET", path)
        if answer.status not in (200, 404):
            raise Refused(f"GET {path}: {answer.status} {answer.text.decode(errors='replace').strip()}")
        return (answer.json() if answer.status == 200 else None), answer.index
