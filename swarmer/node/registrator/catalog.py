"""The services and checks in the consul agent of this node."""

import http.client
import logging
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from swarmer.node.consul_agent import Agent, Refused, Silent
from swarmer.node.registrator.checks import Check, Status
from swarmer.node.registrator.options import Consul
from swarmer.node.registrator.plan import Plan, RegisteredService
from swarmer.node.registrator.services import Service, is_dns_label

logger = logging.getLogger(__name__)

#: Why a name doesn't resolve.
_UNRESOLVABLE: Final = (
    "a name has 1 to 63 letters, digits, dashes and underscores, without a dash at its ends; set SERVICE_NAME"
)

#: The last word of a path that reports a status.
_REPORT: Final = {Status.PASSING: "pass", Status.WARNING: "warn", Status.CRITICAL: "fail"}


def connect(options: Consul) -> Agent:
    """A client of the agent.

    Raises:
        Refused: a certificate or key can't be read.
    """
    if options.scheme == "http":
        return Agent(options.token or "", connection=http.client.HTTPConnection(options.host, options.port))
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.certificate:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:
        files = ", ".join(file for file in (options.ca, options.certificate, options.key) if file)
        raise Refused(f"{files}: {error}") from error
    connection = http.client.HTTPSConnection(options.host, options.port, context=context)
    return Agent(options.token or "", connection=connection)


class Catalog:
    """Reads and changes the services and checks of an agent."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._refusals: dict[str, str] = {}

    def address(self) -> str:
        """The address that the agent advertises to its cluster.

        Raises:
            Refused: it doesn't answer, or not yet: at a cluster's first boot it doesn't know the token.
        """
        return str(self.agent.call("GET", "agent/self")["Member"]["Addr"])

    def check_known(self) -> None:
        """Check that services of this node can get into the catalog of the cluster.

        The agent writes its node there first. A service that comes before needs the right to write nodes, which we
        don't have, and consul retries only after a minute. If no server answers, there is nothing to wait for.

        Raises:
            Refused: the catalog doesn't know the node yet.
        """
        try:
            name = self.agent.call("GET", "agent/self")["Config"]["NodeName"]
            known = self.agent.call("GET", f"catalog/node/{quote(name)}?stale")
        except Refused:
            return
        # Of a member that only gossip has reported, there is no metadata.
        if not known or not known["Node"]["Meta"]:
            raise Refused("the catalog doesn't know this node yet")

    def services(self) -> list[RegisteredService]:
        """All services of the agent, whoever registered them.

        Raises:
            Refused: it doesn't answer, or not yet: at a cluster's first boot it doesn't know the token.
        """
        services = self.agent.call("GET", "agent/services") or {}
        checks: dict[str, dict[str, str]] = {}
        for check in (self.agent.call("GET", "agent/checks") or {}).values():
            checks.setdefault(check["ServiceID"], {})[check["CheckID"]] = check["Status"]
        return [
            RegisteredService(
                id=service["ID"],
                name=service["Service"],
                address=service["Address"],
                port=service["Port"],
                tags=tuple(service["Tags"] or ()),
                meta=service["Meta"] or {},
                checks=checks.get(service["ID"], {}),
            )
            for service in services.values()
        ]

    def apply(self, plan: Plan) -> list[str]:
        """Take the steps of a plan. A refused step doesn't prevent the others.

        Returns:
            The IDs of services whose step was refused, but may not be later; the reasons are in the log.

        Raises:
            Silent: the agent doesn't answer any more; what is left is in the next plan again.
        """
        refused = [refusal.service.id for refusal in plan.refused if not refusal.final]
        for refusal in plan.refused:
            shown = _printable(refusal.service.id)
            self._complain(refusal.service.id, f"{shown} is not registered: {refusal.reason}")
        for identity in plan.deregister:
            if self._step("deregister", identity, partial(self._deregister, identity)):
                logger.info("removed %s", identity)
            else:
                refused.append(identity)
        for service in plan.register:
            if self._step("register", service.id, partial(self._register, service)):
                name = _printable(service.name)
                logger.info("added %s as %s at %s:%s", service.id, name, service.address, service.port)
                if not is_dns_label(service.name):
                    logger.warning("%s doesn't resolve by DNS: %s", name, _UNRESOLVABLE)
            else:
                refused.append(service.id)
        for check in plan.report:
            if not self._step("report", check.id, partial(self._report, check)):
                refused.append(check.id)
        kept = {*refused, *(refusal.service.id for refusal in plan.refused)}
        self._refusals = {identity: text for identity, text in self._refusals.items() if identity in kept}
        return refused

    def _complain(self, identity: str, text: str) -> None:
        """Log a refusal once, though it is repeated with each retry."""
        if self._refusals.get(identity) != text:
            self._refusals[identity] = text
            logger.error(text)

    def _register(self, service: Service) -> None:
        definition = {
            "Name": service.name,
            "ID": service.id,
            "Address": service.address,
            "Port": service.port,
            "Tags": list(service.tags),
            "Meta": dict(service.meta),
            "Checks": [_definition(check) for check in service.checks],
        }
        self.agent.call("PUT", "agent/service/register?replace-existing-checks=true", definition)

    def _deregister(self, identity: str) -> None:
        self.agent.call("PUT", f"agent/service/deregister/{quote(identity, safe='')}")

    def _report(self, check: Check) -> None:
        # Without a note: a changed output would be written to the catalog, even with an unchanged status.
        self.agent.call("PUT", f"agent/check/{_REPORT[check.status or Status.CRITICAL]}/{quote(check.id, safe='')}")

    def _step(self, verb: str, identity: str, step: Callable[[], None]) -> bool:
        """Take a step; False when consul refused it."""
        try:
            step()
        except Silent:
            raise
        except Refused as refused:
            self._complain(identity, f"consul refused to {verb} {identity}: {refused.reason}")
            return False
        return True


def _printable(text: str) -> str:
    """The text on one line of the log."""
    return text if text.isprintable() else repr(text)


def _definition(check: Check) -> dict[str, Any]:
    status = {"Status": str(check.status)} if check.status else {}
    return {"CheckID": check.id, **check.definition, **status}


def refresh_periods(services: Iterable[Service]) -> dict[str, float]:
    """The checks that we report ourselves: ID to seconds between two reports."""
    return {check.id: check.refresh for service in services for check in service.checks if check.refresh is not None}
