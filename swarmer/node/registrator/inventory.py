"""The containers of this node's docker engine, as last seen."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from swarmer.node.docker_engine import NotFound
from swarmer.node.registrator.addresses import BRIDGES, Inspection, is_published_on_one_address
from swarmer.node.registrator.engine import Engine

#: The `Config` of a container or an image in docker's inspection.
Config = Mapping[str, Any]

_SCRIPT: Final = "_CHECK_SCRIPT"


class Inventory:
    """The containers of this node, as docker reported them last.

    Attributes:
        containers: ID to inspection.
        complete: whether all containers were seen once.
    """

    def __init__(self, url: str, *, with_ended: bool) -> None:
        """Prepare; docker isn't asked yet.

        Args:
            with_ended: also keep inspections of containers that don't run any more.
        """
        self.engine = Engine(url)
        self.with_ended = with_ended
        self.containers: dict[str, Inspection] = {}
        self.complete = False
        self._summaries: dict[str, object] = {}
        self._dead: dict[str, int] = {}

    def look_at(self, identities: Iterable[str]) -> None:
        """Inspect some containers again.

        Raises:
            EngineError: they can't be.
        """
        for identity in sorted(identities):
            self._inspect(identity)

    def look_at_all(self) -> None:
        """Compare with docker's list, and inspect the containers whose state has changed.

        Raises:
            EngineError: it can't be asked.
        """
        listed = {item["Id"]: summary(item) for item in self.engine.containers(ended=self.with_ended)}
        for identity in set(self.containers) - set(listed):
            self._forget(identity)
        for identity, state in sorted(listed.items()):
            if identity not in self.containers or self._summaries.get(identity) != state:
                self._inspect(identity)
                self._summaries[identity] = state
        self.complete = True

    def processes(self) -> dict[str, int]:
        """The first process of each container that is one of this machine, by container ID."""
        return {
            identity: inspection["State"]["Pid"]
            for identity, inspection in self.containers.items()
            if inspection.get("seen")
        }

    def drop_dead(self, identities: Iterable[str] | None = None) -> bool:
        """Drop containers whose process has ended, before docker reports it; whether there were any.

        An engine cleans up before it reports the end of a container, and an engine that is being stopped closes its
        API before it stops its containers.

        Args:
            identities: the containers that may be; all by default.
        """
        processes = self.processes()
        suspects = set(processes) if identities is None else processes.keys() & set(identities)
        dead = {identity for identity in suspects if not _process_exists(processes[identity])}
        for identity in dead:
            self._forget(identity)
            self._dead[identity] = processes[identity]
        return bool(dead)

    def _inspect(self, identity: str) -> None:
        self._summaries.pop(identity, None)
        try:
            inspection = self.engine.container(identity)
        except NotFound:
            self._forget(identity)
            self._dead.pop(identity, None)
            return
        if not inspection["State"].get("Running") and not self.with_ended:
            self._forget(identity)
            self._dead.pop(identity, None)
            return
        # Docker hasn't noticed the end of the process yet, which we saw.
        pid = inspection["State"].get("Pid") or 0
        if self._dead.pop(identity, 0) == pid and pid and not _process_exists(pid):
            self._forget(identity)
            self._dead[identity] = pid
            return
        if has_script(inspection["Config"]):
            inspection["Config"] = drop_image_scripts(inspection["Config"], self._image(inspection))
        if is_published_on_one_address(inspection):
            inspection[BRIDGES] = self.engine.bridge_addresses()
        # Processes of an engine on another machine, or in another process namespace, can't be seen.
        inspection["seen"] = _process_exists(pid)
        self.containers[inspection["Id"]] = inspection

    def _image(self, inspection: Inspection) -> Config:
        """The configuration of a container's image; if the image is gone, that of the container."""
        found: Config
        try:
            found = self.engine.image(inspection["Image"])["Config"] or {}
        except NotFound:
            found = inspection["Config"]  # the origin of a script can't be told any more
        return found

    def _forget(self, identity: str) -> None:
        self.containers.pop(identity, None)
        self._summaries.pop(identity, None)


def summary(item: Mapping[str, Any]) -> object:
    """The parts of an element of docker's list of containers on which its services depend."""
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
    """Whether a process runs. A zombie doesn't."""
    if pid <= 0:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")


def has_script(config: Config) -> bool:
    """Whether a container, or an image, asks for a script, by its `Config`."""
    names = [*(variable.partition("=")[0] for variable in config.get("Env") or ()), *(config.get("Labels") or ())]
    return any(map(_is_script, names))


def drop_image_scripts(config: Config, image: Config) -> dict[str, Any]:
    """A container's `Config` without the scripts that are its image's.

    Scripts run on the node: only whoever runs the container may ask for them, not whoever made its image. Docker's
    inspection of a container doesn't distinguish the image's variables and labels from its own.
    """
    variables, labels = set(image.get("Env") or ()), (image.get("Labels") or {}).items()
    return {
        **config,
        "Env": [
            variable
            for variable in config.get("Env") or ()
            if not (variable in variables and _is_script(variable.partition("=")[0]))
        ],
        "Labels": {
            name: value
            for name, value in (config.get("Labels") or {}).items()
            if not ((name, value) in labels and _is_script(name))
        },
    }


def _is_script(name: str) -> bool:
    return name.upper().endswith(_SCRIPT)
