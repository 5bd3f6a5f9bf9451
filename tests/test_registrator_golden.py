"""Inspections recorded from docker on a node, and the services that they make.

`tests/golden/inspections/` holds what `docker inspect` said, `tests/golden/services.json` what is to be announced,
with and without `-internal`. Both are read by people: a change of the second is a change for users.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from swarmer.node.registrator.addresses import shared_network
from swarmer.node.registrator.command_line import parse
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.services import Service, services_of
from swarmer.node.registrator.swarm_services import announced_labels, forwarded_ports, mesh_services_of

GOLDEN = Path(__file__).parent / "golden"
HOST = "192.168.118.101"
INSPECTIONS: dict[str, Any] = {
    file.stem: json.loads(file.read_text()) for file in sorted((GOLDEN / "inspections").glob("*.json"))
}
SWARM: list[Any] = json.loads((GOLDEN / "swarm-services.json").read_text())
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "services.json").read_text())
MODES = {"published": "", "internal": "-internal", "from a label": "-internal -useIpFromLabel address"}


def options(mode: str) -> Options:
    return parse([*MODES[mode].split(), "-hostname", "node", "consul://127.0.0.1"], {})


def shown(services: list[Service]) -> list[dict[str, Any]]:
    """What of services a person reads; the digest of the checks says nothing to them."""
    return [
        {
            "id": service.id,
            "name": service.name,
            "at": f"{service.address}:{service.port}",
            "tags": list(service.tags),
            "meta": {key: value for key, value in service.meta.items() if not key.startswith("registrator")},
            "checks": [
                {"id": check.id, **check.definition, **({"Status": str(check.status)} if check.status else {})}
                for check in service.checks
            ],
        }
        for service in services
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INSPECTIONS)
def test_a_recorded_container_makes_its_services(name: str, mode: str) -> None:
    container = INSPECTIONS[name]
    by_id = {other["Id"]: other for other in INSPECTIONS.values()}
    service_id = (container["Config"]["Labels"] or {}).get("com.docker.swarm.service.id")
    made = services_of(
        container,
        options(mode),
        host_address=HOST,
        network_container=by_id.get(shared_network(container)),
        service_labels=next((announced_labels(one) for one in SWARM if one["ID"] == service_id), None),
    )
    assert shown(made) == EXPECTED["containers"][name][mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("service", SWARM, ids=[one["Spec"]["Name"] for one in SWARM])
def test_a_recorded_swarm_service_makes_its_services(service: Any, mode: str) -> None:
    made = mesh_services_of(service, options(mode), host_address=HOST, open_ports=forwarded_ports([service]))
    assert shown(made) == EXPECTED["swarm"][service["Spec"]["Name"]][mode]


def test_every_recording_has_its_services() -> None:
    assert set(EXPECTED["containers"]) == set(INSPECTIONS)


def test_nothing_of_a_container_leaks_but_what_it_says_of_its_services() -> None:
    text = json.dumps(EXPECTED)
    assert "com.docker" not in text
    assert "hunter2" not in text
