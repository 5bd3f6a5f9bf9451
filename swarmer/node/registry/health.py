"""Whether this node can answer correctly, and its registration in consul."""

import logging
import time
from typing import Final

from swarmer.node.consul_agent import Agent, Refused, own_token
from swarmer.node.registry import docker_registry
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.bucket import Bucket
from swarmer.node.registry.holdings import Holdings
from swarmer.node.registry.settings import Settings
from swarmer.node.slowness import scaled
from swarmer.ports import REGISTRY

logger = logging.getLogger(__name__)

#: The ID of the check in consul; the session of a leader ends when it fails.
CHECK: Final = "registry"

#: Seconds between two tries to register, for which a cluster that boots waits.
_SOON: Final = scaled(0.1)

#: Seconds without an answer of consul after which this node counts as cut off. An election is over sooner.
_CUT_OFF: Final = scaled(5.0)

#: Seconds between two checks that consul still has the service.
_REGISTER: Final = scaled(5.0)


class Health:
    """Answers the check of consul, and registers the service."""

    def __init__(self, settings: Settings, holdings: Holdings | None, agents: Agents) -> None:
        self._settings = settings
        self._holdings = holdings
        self._agents = agents
        self._bucket = Bucket()

    def problem(self) -> str:
        """Why this node can't answer; empty when it can."""
        if self._holdings is None:
            return self._bucket.problem()
        if problem := docker_registry.problem():
            return problem
        if not self._holdings.joined:
            return "this node does not have all acknowledged content yet"
        if time.monotonic() - self._agents.contact > _CUT_OFF:
            return "this node can't ask what is acknowledged: consul has no quorum here"
        return ""

    def watch(self) -> None:
        """Register the service once this node can answer, and again if consul loses it. Never returns."""
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
            "Interval": f"{scaled(1):.1f}s",
            "Timeout": f"{scaled(2):.1f}s",
            # A program that is just restarting fails once.
            "FailuresBeforeCritical": 2,
            "Status": "passing",
        }
        return {"ID": "registry", "Name": "registry", "Address": address, "Port": REGISTRY.number, "Check": check}


def deregister() -> None:
    """Remove the service from consul at a shutdown, so that clients are no longer sent here."""
    try:
        Agent(own_token("registry"), timeout=1).call("PUT", "agent/service/deregister/registry")
    except Refused as refused:
        logger.info("%s", refused)
