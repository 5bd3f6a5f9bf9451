"""The HTTP API of a consul agent, most often this node's own, for our programs on the nodes.

It needs no package but Python's own, so that programs start fast and small.

Sources: the HTTP API of consul; its page "Blocking Queries".
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmer.node.slowness import scaled
from swarmer.ports import CONSUL_HTTPS

#: The folder of the seed data.
SEED = Path("/etc/swarmer")


class Refused(Exception):
    """Consul doesn't answer, or not with success.

    Attributes:
        status: of the answer, 0 when there is none.
        reason: what consul answered.
    """

    def __init__(self, text: str, status: int = 0, reason: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason or text


class Silent(Refused):
    """Consul doesn't answer."""


@dataclass(frozen=True)
class Answer:
    """An answer of consul, whatever its status."""

    status: int
    headers: Mapping[str, str]
    text: bytes

    @property
    def index(self) -> int:
        """For the next question with `?index=`, which is answered when the state has changed."""
        return int(self.headers.get("X-Consul-Index") or 0)

    @property
    def knows_leader(self) -> bool:
        """Whether the server that answered is in contact with a leader: a question with `?stale` needs none."""
        return self.headers.get("X-Consul-Knownleader") == "true"  # spelled as Go normalizes it

    def json(self) -> Any:
        return json.loads(self.text) if self.text else None


def removal(node: str, service: Mapping[str, Any]) -> dict[str, Any]:
    """The step of a transaction that removes a service from the catalog, unless it was changed meanwhile.

    Consul may carry out a write long after its client has timed out, as during an election. The token has to have
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
    """The agent's HTTP API, over one connection that is kept open. Threads can't share it.

    Args:
        host: where the agent of a node of this cluster listens.
        timeout: seconds until an agent that doesn't answer is given up, more on a slow node.
        connection: to another agent, instead of `host`.
    """

    def __init__(
        self,
        token: str,
        *,
        host: str = "127.0.0.1",
        timeout: float = 5,
        connection: http.client.HTTPConnection | None = None,
    ) -> None:
        self._timeout = scaled(timeout)
        self._connection = connection or _to_node(host)
        self._headers = {"X-Consul-Token": token} if token else {}

    def ask(
        self, method: str, path: str, body: object = None, *, timeout: float | None = None, token: str = ""
    ) -> Answer:
        """The answer of consul, whatever it is.

        Args:
            body: is sent as JSON; bytes as they are.
            timeout: replaces the agent's, for this question.
            token: replaces the agent's, for this question.

        Raises:
            Silent: there is none.
        """
        self._connection.timeout = self._timeout if timeout is None else scaled(timeout)
        if self._connection.sock:
            self._connection.sock.settimeout(self._connection.timeout)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body)
            headers = {"X-Consul-Token": token} if token else self._headers
            self._connection.request(method, f"/v1/{path}", content, headers)
            answer = self._connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Silent(f"consul doesn't answer: {error}") from error

    def close(self) -> None:
        """End the connection; the next question opens another."""
        self._connection.close()

    def call(self, method: str, path: str, body: object = None, *, token: str = "") -> Any:
        """The answer of consul, from JSON.

        Raises:
            Refused: there is none (`Silent`), or it isn't a success.
        """
        answer = self.ask(method, path, body, token=token)
        if answer.status != 200:
            raise refusal(f"{method} {path}", answer)
        return answer.json()

    def knows_us(self) -> bool:
        """Whether consul answers and accepts our token.

        While a cluster forms, waiting for this is cheaper than many refused requests.
        """
        try:
            self.call("GET", "acl/token/self")
        except Refused:
            return False
        return True

    def read(self, path: str, *, index: int = 0, wait: float = 0) -> tuple[Any, int]:
        """The state at a path, None if there is nothing, and its index.

        Args:
            index: answer only once the state is another one than this, or when `wait` seconds are over. The
                agent's time-out must be longer.

        Raises:
            Refused: there is no answer, or it isn't a success.
        """
        if wait:
            path += f"{'&' if '?' in path else '?'}index={index}&wait={round(wait * 1000)}ms"
        answer = self.ask("GET", path)
        if answer.status not in (200, 404):
            raise refusal(f"GET {path}", answer)
        return (answer.json() if answer.status == 200 else None), answer.index

    def watch(self, path: str, *, wait: float = 60, first: str = "") -> "Watch":
        """Follow what consul has at a path; the agent is used for nothing else meanwhile.

        Args:
            wait: seconds after which consul answers though nothing has changed.
            first: parameter of the first question alone, such as `consistent`, which can't be combined with waiting.
        """
        return Watch(self, path, wait, first)


class Watch:
    """Successive states of what consul has at a path: the present one, then each time it changes.

    It restarts, with the present state, after an error, and when consul's index goes back, as after a restored
    snapshot: consul would answer nothing until the former index is reached again.
    """

    def __init__(self, agent: Agent, path: str, wait: float, first: str = "") -> None:
        self._agent = agent
        self._path = f"{path}{'&' if '?' in path else '?'}"
        self._wait = wait
        self._first = first
        self._index = 0

    def restart(self) -> None:
        """Let the next question be answered immediately."""
        self._index = 0

    def next(self) -> Answer:
        """The next state; the same one again when nothing has changed for `wait` seconds. A status of 404 is empty.

        Raises:
            Refused: there is no answer, or it isn't a success.
        """
        index, self._index = self._index, 0
        query = f"index={index}&wait={round(self._wait * 1000)}ms" if index else self._first
        # Consul adds up to a sixteenth of the time, so that not all clients ask again at the same moment.
        timeout = self._wait * 17 / 16 + 5 if index else None
        answer = self._agent.ask("GET", self._path + query, timeout=timeout)
        if answer.status not in (200, 404):
            raise refusal(f"GET {self._path}{query}", answer)
        if answer.index >= index:
            self._index = answer.index
        return answer


def refusal(question: str, answer: Answer) -> Refused:
    """The error for an answer that isn't a success."""
    reason = answer.text.decode(errors="replace").strip()
    return Refused(f"{question}: {answer.status} {reason}", answer.status, reason)


def _to_node(host: str) -> http.client.HTTPConnection:
    """A connection to the agent of a node, with this node's certificate."""
    context = ssl.create_default_context(cafile=str(SEED / "consul/ca-chain.pem"))
    context.load_cert_chain(SEED / "consul/node.pem", SEED / "consul/node-key.pem")
    return http.client.HTTPSConnection(host, CONSUL_HTTPS.number, context=context)
