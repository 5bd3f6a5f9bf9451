"""Removes from consul what this node announced of its containers before it lost power, before anybody sees it again.

Consul counts the services of a node as dead with it, and as alive as soon as the node itself is. But its containers
aren't back by then, or never will be. So this runs before consul, as `swarmer-forget-stale-services.service`, and
removes them from the catalog by way of another consul server. If none answers, the registrator does it as soon as it
has started.
"""

import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from swarmer.node.consul_agent import SEED, Agent, Refused, own_token, removal
from swarmer.node.registrator.services import OWNER

#: Where the agent keeps its services and checks over a restart.
KEPT = Path("/var/lib/consul")

#: Seconds until the next server is asked.
TIMEOUT = 0.5


def container_services(agent: Agent, node: str) -> list[dict[str, Any]]:
    """The services in the catalog that the registrator of a node announced."""
    entry = agent.call("GET", f"catalog/node/{node}?consistent") or {}
    return [service for service in (entry.get("Services") or {}).values() if is_of_a_container(service, node)]


def is_of_a_container(service: dict[str, Any], node: str) -> bool:
    """Whether the registrator of this node announced a service."""
    return bool((service.get("Meta") or {}).get(OWNER) == node)


def forget_files(kept: Path, node: str) -> None:
    """Remove the same from the files of the node's own agent, which would announce it again."""
    gone = []
    for file, content in _contents(kept / "services"):
        service = content.get("Service") or {}
        if is_of_a_container(service, node):
            gone.append(service.get("ID"))
            file.unlink()
    _forget_checks(kept / "checks", gone)


def _forget_checks(folder: Path, services: Collection[object]) -> None:
    for file, content in _contents(folder):
        if (content.get("Check") or {}).get("ServiceID") in services:
            file.unlink()


def _contents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of a folder that consul could read as well; a power failure may leave half of one."""
    for file in folder.iterdir() if folder.exists() else ():
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_bytes())
        except ValueError:
            continue
        if isinstance(content, dict):
            yield file, content


def main() -> int:
    """Ask one server after another until one has removed them; then remove them from the agent's files, too."""
    node = json.loads((SEED / "node.json").read_text())["name"]
    servers = json.loads((SEED / "consul/consul.json").read_text())["retry_join"]
    token = own_token("registrator")
    for server in servers:
        agent = Agent(token, host=server, timeout=TIMEOUT)
        try:
            for service in container_services(agent, node):
                agent.call("PUT", "txn", [removal(node, service)])
                print(f"removed {service['ID']}, registered before this boot", flush=True)
        except Refused as error:
            print(f"{server}: {error}", flush=True)
            continue
        forget_files(KEPT, node)
        break
    return 0


if __name__ == "__main__":
    sys.exit(main())
