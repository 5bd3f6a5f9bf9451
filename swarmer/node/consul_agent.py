"""This node's own consul agent, for the programs of ours that run on nodes: no package but Python's own."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

#: Where cloud-init puts all that a node gets to know.
SEED = Path("/etc/swarmer")


class Refused(Exception):
    """Consul is not ready, or says no."""


def own_token(service: str) -> str:
    """The ACL token of a service on this node."""
    return (SEED / "tokens" / service).read_text().strip()


class Agent:
    """The agent's HTTP API, over one connection that is kept open. Not to be shared by threads."""

    def __init__(self, token: str, *, timeout: float = 5) -> None:
        context = ssl.create_default_context(cafile=str(SEED / "consul/ca-chain.pem"))
        context.load_cert_chain(SEED / "consul/node.pem", SEED / "consul/node-key.pem")
        self._connection = http.client.HTTPSConnection("127.0.0.1", 8500, timeout=timeout, context=context)
        self._headers = {"X-Consul-Token": token}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """What consul answers, from JSON.

        Raises:
            Refused: it doesn't answer, or not with success.
        """
        try:
            content = None if body is None else json.dumps(body)
            self._connection.request(method, f"/v1/{path}", content, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Refused(f"consul doesn't answer: {error}") from error
        if answer.status != 200:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace').strip()}")
        return json.loads(text) if text else None
