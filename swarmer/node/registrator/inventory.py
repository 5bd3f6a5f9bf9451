"""The containers and swarm services of this node's docker engine, as last seen."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors

from swarmer.node.registrator.events import UNREACHABLE
from swarmer.node.registrator.services import Inspection
from swarmer.node.registrator.swarm import SwarmService

logger = logging.getLogger(__name__)


class DockerAway(Exception):
    """The docker engine doesn't answer; another try may succeed."""


class Refused(DockerAway):
    """Docker answered with an error."""


class Missing(Refused):
    """Docker knows no such container."""


class Inventory:
    """What docker says of this node.

    Attributes:
        containers: ID to inspection.
        swarm_services: all services of the swarm when this node manages it, else none.
        complete: whether all containers were seen once.
    """

    def __init__(self, url: str, *, with_ended: bool) -> None:
        """Look at nothing yet.

        Args:
            with_ended: also keep inspections of containers that don't run any more.
        """
        self.url = url
        self.with_ended = with_ended
        self.containers: dict[str, Inspection] = {}
        self.swarm_services: list[SwarmService] = []
        self.is_manager = False
        self.complete = False
        self._summaries: dict[str, object] = {}
        self._client: Any = None

    def look_at(self, identities: Iterable[str]) -> None:
        """Inspect some containers anew.

        Raises:
            DockerAway: they can't be.
        """
        for identity in sorted(identities):
            self._inspect(identity)

    def look_at_all(self) -> None:
        """Compare with docker's list, and inspect the containers that it shows in another state than before.

        Raises:
            DockerAway: it can't be asked.
        """
        listed = {item["Id"]: summary(item) for item in self._ask("containers", all=self.with_ended)}
        for identity in set(self.containers) - set(listed):
            self._forget(identity)
        for identity, state in sorted(listed.items()):
            if identity not in self.containers or self._summaries.get(identity) != state:
                self._inspect(identity)
                self._summaries[identity] = state
        self.complete = True

    def look_at_swarm(self) -> None:
        """Ask for the services of the swarm, if this node manages one.

        Raises:
            DockerAway: it can't be asked.
        """
        try:
            self.swarm_services = self._ask("services", status=True)
            self.is_manager = True
        except Refused:
            # A manager without a quorum knows its services no longer, but they are still there.
            self.is_manager = bool((self._ask("info").get("Swarm") or {}).get("ControlAvailable"))
            if not self.is_manager:
                self.swarm_services = []

    def drop_dead(self) -> bool:
        """Forget containers whose process is gone, while docker can't be asked; whether there were any.

        A docker engine that is stopped stops its containers after it has closed its API.
        """
        dead = [
            identity
            for identity, inspection in self.containers.items()
            if (pid := inspection["State"].get("Pid")) and inspection.get("seen") and not _process_exists(pid)
        ]
        for identity in dead:
            self._forget(identity)
        return bool(dead)

    def _inspect(self, identity: str) -> None:
        self._summaries.pop(identity, None)
        try:
            inspection: dict[str, Any] = self._ask("inspect_container", identity)
        except Missing:
            self._forget(identity)
            return
        if not inspection["State"].get("Running") and not self.with_ended:
            self._forget(identity)
            return
        # Processes of an engine on another machine, or in another process namespace, can't be seen.
        inspection["seen"] = _process_exists(inspection["State"].get("Pid") or 0)
        self.containers[inspection["Id"]] = inspection

    def _forget(self, identity: str) -> None:
        self.containers.pop(identity, None)
        self._summaries.pop(identity, None)

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of docker's client.

        Raises:
            DockerAway: there was no answer, or (Missing, Refused) an error.
        """
        try:
            if self._client is None:
                self._client = docker.APIClient(base_url=self.url, version="auto", timeout=10)
            return getattr(self._client, method)(*arguments, **options)
        except docker.errors.NotFound as error:
            raise Missing(str(error)) from error
        except docker.errors.APIError as error:
            raise Refused(str(error)) from error
        except UNREACHABLE as error:
            if self._client is not None:
                self._client.close()
                self._client = None
            raise DockerAway(type(error).__name__) from error


def summary(item: Mapping[str, Any]) -> object:
    """What of an element of docker's list of containers changes when its services may."""
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    status = item.get("Status") or ""
    return (
        item.get("State"),
        # "Up 5 minutes (healthy)": the part in brackets.
        status.partition("(")[2],
        sorted(item.get("Names") or ()),
        sorted(
            (port.get("IP", ""), port.get("PublicPort", 0), port["PrivatePort"]) for port in item.get("Ports") or ()
        ),
        sorted((name, (network or {}).get("IPAddress")) for name, network in networks.items()),
    )


def _process_exists(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()
