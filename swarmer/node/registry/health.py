"""Whether this node can answer correctly, and telling consul of it."""

import logging
import time
from typing import Final

from swarmer.node.consul_agent import Agent, Refused, own_token
from swarmer.node.patience import patient
from swarmer.node.registry import docker_registry
from swarmer.node.registry.bucket import Bucket
from swarmer.node.registry.records import Agents
from swarmer.node.registry.replication import Replication
from swarmer.node.registry.settings import Settings
from swarmer.ports import REGISTRY

logger = logging.getLogger(__name__)

#: The ID of the check in consul; the session of who leads ends with it.
CHECK: Final = "registry"

#: Before this node is registered: a cluster that boots waits for it.
_SOON: Final = patient(0.1)

#: Seconds without an answer after which this node says that it is cut off. An election is over sooner.
_CUT_OFF: Final = patient(5.0)

#: Seconds between two looks whether consul still knows the service.
_REGISTER: Final = patient(5.0)


class Health:
    """What the check of consul asks."""

    def __init__(self, settings: Settings, replication: Replication | None, agents: Agents) -> None:
        self._settings = settings
        self._replication = replication
        self._agents = agents
        self._bucket = Bucket()

    def problem(self) -> str:
        """Why this node can't answer; empty when it can."""
        if self._replication is None:
            return self._bucket.problem()
        if problem := docker_registry.problem():
            return problem
        if not self._replication.joined:
            return "this node does not have everything yet that was acknowledged"
        if time.monotonic() - self._agents.contact > _CUT_OFF:
            return "this node can't ask the cluster what is acknowledged: consul has no quorum here"
        return ""

    def watch(self) -> None:
        """Keep the service registered, from when this node can answer. Never ends."""
        pause = _SOON
        while True:
            try:
                if not self.problem():
                    self._register()
                    pause = _REGISTER
            except (Refused, OSError) as error:
                logger.debug("%s", error)
            time.sleep(pause)

    def _register(self) -> None:
        with self._agents.one() as agent:
            if agent.ask("GET", "agent/service/registry").status == 200:
                return
            agent.call("PUT", "agent/service/register", self._definition())
        logger.info("registered in consul")

    def _definition(self) -> dict[str, object]:
        address = self._settings.ip
        check = {
            "CheckID": CHECK,
            "Name": "the registry can answer",
            "HTTP": f"https://{address}:{REGISTRY.number}/health",
            "Interval": f"{patient(1):.1f}s",
            "Timeout": f"{patient(2):.1f}s",
            # One failure is a program that is just being started again.
            "FailuresBeforeCritical": 2,
            "Status": "passing",
        }
        return {"ID": "registry", "Name": "registry", "Address": address, "Port": REGISTRY.number, "Check": check}


def deregister() -> None:
    """At a shutdown: nobody is sent here any more."""
    try:
        Agent(own_token("registry"), timeout=1).call("PUT", "agent/service/deregister/registry")
    except Refused as refused:
        logger.info("%s", refused)
