"""The consul agent of this node: what it holds, and how that is changed."""

import logging
from collections.abc import Iterable
from typing import Any, Final

import consul
import requests

from swarmer.node.patience import patient
from swarmer.node.registrator.checks import Check, Status
from swarmer.node.registrator.options import Consul
from swarmer.node.registrator.plan import Plan, Registered
from swarmer.node.registrator.services import Service

logger = logging.getLogger(__name__)

#: Seconds until an agent that says nothing counts as unreachable.
TIMEOUT: Final = patient(5.0)

#: What a consul that restarts, is slow or has no leader raises. A refusal is not among them.
UNREACHABLE: Final = (requests.RequestException, consul.Timeout)


class Unreachable(Exception):
    """The agent doesn't answer, or can't do its work now; another try may succeed."""


def connect(options: Consul) -> consul.Consul:
    """A client of the agent."""
    client = consul.Consul(
        host=options.url_host,
        port=options.port,
        scheme=options.scheme,
        verify=options.ca or True,
        cert=(options.certificate, options.key) if options.certificate else None,
        connections_timeout=TIMEOUT,
    )
    # The constructor prefers CONSUL_HTTP_TOKEN over what it is given, and so over a token file.
    client.token = options.token
    return client


class Catalog:
    """The services and checks that the agent holds."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._refusals: dict[str, str] = {}

    def address(self) -> str:
        """The address that the agent tells its cluster.

        Raises:
            Unreachable: it can't be asked.
        """
        return str(self._read(self.client.agent.self)["Member"]["Addr"])

    def check_known(self) -> None:
        """Make sure that services of this node can get into the cluster's catalog.

        The agent writes its node there first. A service that comes before needs the right to write nodes, which we
        don't have, and consul tries again only after a minute. Without servers that answer, nobody waits.

        Raises:
            Unreachable: the catalog doesn't know the node yet.
        """
        try:
            name = self._read(self.client.agent.self)["Config"]["NodeName"]
            _, known = self._read(lambda: self.client.catalog.node(name, consistency="stale"))
        except Unreachable:
            return
        # Of a member that only gossip has told of, there is no metadata.
        if not known or not known["Node"]["Meta"]:
            raise Unreachable("the catalog doesn't know this node yet")

    def registered(self) -> list[Registered]:
        """All services of the agent, whoever registered them.

        Raises:
            Unreachable: it can't be asked.
        """
        services = self._read(self.client.agent.services) or {}
        checks: dict[str, dict[str, str]] = {}
        for check in (self._read(self.client.agent.checks) or {}).values():
            checks.setdefault(check["ServiceID"], {})[check["CheckID"]] = check["Status"]
        return [
            Registered(
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
        """Take the steps of a plan. One that consul refuses doesn't hold up the others.

        Returns:
            The IDs of services whose step was refused; why is in the log.

        Raises:
            Unreachable: the agent stopped answering; what is left is in the next plan again.
        """
        refused = [service.id for service in plan.refused]
        for service in plan.refused:
            self._complain(service.id, f"{service.id} is not registered: another program's service has that ID")
        for identity in plan.deregister:
            if self._step("deregister", identity, lambda identity=identity: self._deregister(identity)):
                logger.info("removed %s", identity)
            else:
                refused.append(identity)
        for service in plan.register:
            if self._step("register", service.id, lambda service=service: self._register(service)):
                logger.info("added %s as %s at %s:%s", service.id, service.name, service.address, service.port)
            else:
                refused.append(service.id)
        for check in plan.report:
            if not self._step("report", check.id, lambda check=check: self._report(check)):
                refused.append(check.id)
        self._refusals = {identity: text for identity, text in self._refusals.items() if identity in refused}
        return refused

    def _complain(self, identity: str, text: str) -> None:
        """Log a refusal, once: it is met again with every next try."""
        if self._refusals.get(identity) != text:
            self._refusals[identity] = text
            logger.error(text)

    def _register(self, service: Service) -> None:
        definitions = [_definition(check) for check in service.checks]
        self.client.agent.service.register(
            service.name,
            service_id=service.id,
            address=service.address,
            port=service.port,
            tags=list(service.tags),
            meta=dict(service.meta),
            check=definitions[0] if definitions else None,
            extra_checks=definitions[1:],
            replace_existing_checks=True,
        )

    def _deregister(self, identity: str) -> None:
        self.client.agent.service.deregister(identity)

    def _report(self, check: Check) -> None:
        # Without a note: a changed output would be written to the catalog, even with an unchanged status.
        report = {
            Status.PASSING: self.client.agent.check.ttl_pass,
            Status.WARNING: self.client.agent.check.ttl_warn,
            Status.CRITICAL: self.client.agent.check.ttl_fail,
        }
        report[check.status or Status.CRITICAL](check.id)

    def _step(self, verb: str, identity: str, step: Any) -> bool:
        """Take a step; False when consul refused it."""
        try:
            self._call(step)
        except consul.ConsulException as error:
            self._complain(identity, f"consul refused to {verb} {identity}: {error}")
            return False
        return True

    def _read(self, call: Any) -> Any:
        """Ask something. A refusal is temporary too: at a cluster's first boot the token isn't known yet."""
        try:
            return self._call(call)
        except consul.ConsulException as error:
            raise Unreachable(str(error)) from error

    def _call(self, call: Any) -> Any:
        try:
            return call()
        except UNREACHABLE as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error


def _definition(check: Check) -> dict[str, Any]:
    status = {"Status": str(check.status)} if check.status else {}
    return {"CheckID": check.id, **check.definition, **status}


def reported_ids(services: Iterable[Service]) -> dict[str, float]:
    """The checks that we report ourselves: ID to seconds between two reports."""
    return {check.id: check.refresh for service in services for check in service.checks if check.refresh is not None}
