"""The part of docker's API that is about containers and the services of a swarm."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from swarmer.node import docker_engine
from swarmer.node.docker_engine import EngineError, ask

#: Seconds until an engine that doesn't answer counts as away.
TIMEOUT: Final = 10.0

#: Docker's inspection of a container, or an element of one of its lists.
Inspection = Mapping[str, Any]


class Engine(docker_engine.Engine):
    """A docker engine with containers. All methods raise `EngineError`."""

    def containers(self, *, ended: bool) -> list[Inspection]:
        """The list of containers.

        Args:
            ended: also those that don't run.
        """
        return cast("list[Inspection]", self._get(f"/containers/json?all={int(ended)}"))

    def container(self, identity: str) -> dict[str, Any]:
        """The inspection of a container."""
        return cast("dict[str, Any]", self._get(f"/containers/{quote(identity, safe='')}/json"))

    def image(self, identity: str) -> Inspection:
        """The inspection of an image."""
        return cast("Inspection", self._get(f"/images/{quote(identity, safe=':')}/json"))

    def bridge_addresses(self) -> list[str]:
        """The addresses that the engine's bridges have on its host; no other host can reach them."""
        filters = quote(json.dumps({"driver": ["bridge"]}))
        networks: list[Inspection] = self._get(f"/networks?filters={filters}")
        configs = [config for network in networks for config in network["IPAM"].get("Config") or ()]
        return sorted({config["Gateway"].partition("/")[0] for config in configs if config.get("Gateway")})

    def services(self) -> list[Inspection]:
        """The services of the swarm, with their `ServiceStatus`; only a manager can list them."""
        return cast("list[Inspection]", self._get("/services?status=true"))

    def begin_command(self, container: str, command: list[str]) -> str:
        """Prepare a command in a container; its ID."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": command}
        return str(self.call("POST", f"/containers/{container}/exec", body, timeout=TIMEOUT)["Id"])

    def run_command(self, identity: str, *, deadline: float, keep: int) -> bytes:
        """Run a prepared command until its output ends, or until the deadline.

        Args:
            deadline: on the monotonic clock.
            keep: how many bytes of the output are returned, its last ones.
        """
        connection = self.connection(TIMEOUT)
        try:
            connection.connect()
            own_socket = connection.sock  # http.client gives it away with an answer of unknown length
            body = {"Detach": False, "Tty": False}
            return _output(ask(connection, "POST", f"/exec/{identity}/start", body), own_socket, deadline, keep)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"docker doesn't answer: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def command(self, identity: str) -> Inspection:
        """The inspection of a command."""
        return cast("Inspection", self._get(f"/exec/{identity}/json"))

    def _get(self, path: str) -> Any:
        return self.call("GET", path, timeout=TIMEOUT)


def _output(answer: http.client.HTTPResponse, own_socket: socket.socket, deadline: float, keep: int) -> bytes:
    """The end of what a command writes. Docker sends frames: eight bytes, the last four of them the length, then text.

    What is missing when the deadline passes, or the connection breaks, is missing.
    """
    kept = received = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while (left := deadline - time.monotonic()) > 0:
            own_socket.settimeout(left)
            if not (chunk := answer.read1(65536)):
                break
            received += chunk
            while len(received) >= 8 and len(received) >= (end := 8 + int.from_bytes(received[4:8])):
                kept, received = (kept + received[8:end])[-keep:], received[end:]
    return kept
