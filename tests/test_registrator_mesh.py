"""Services of the swarm: the ports of its routing mesh, the labels that managers share, and a whole node together."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_strategies import CONTAINER_ID, container, metadata, port_numbers

from swarmer.node.registrator.command_line import parse
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.plan import desired_services
from swarmer.node.registrator.services import CONTAINER, OWNER, Service
from swarmer.node.registrator.shared_labels import decode_labels
from swarmer.node.registrator.swarm_services import announced_labels, forwarded_ports, mesh_services_of

HOST = "192.168.1.10"


def options(line: str = "") -> Options:
    return parse([*line.split(), "-hostname", "node", "consul://127.0.0.1"], {})


def port(published: int, target: int, protocol: str = "tcp", mode: str = "ingress") -> dict[str, Any]:
    return {"PublishedPort": published, "TargetPort": target, "Protocol": protocol, "PublishMode": mode}


def swarm_service(
    *ports: dict[str, Any],
    name: str = "shop",
    labels: dict[str, str] | None = None,
    container_labels: dict[str, str] | None = None,
    env: tuple[str, ...] = (),
    running: int = 1,
) -> dict[str, Any]:
    return {
        "ID": f"id-of-{name}",
        "Spec": {
            "Name": name,
            "Labels": labels or {},
            "TaskTemplate": {"ContainerSpec": {"Image": "web", "Env": list(env), "Labels": container_labels or {}}},
        },
        "Endpoint": {"Ports": list(ports)},
        "ServiceStatus": {"RunningTasks": running},
    }


def announced(service: dict[str, Any], line: str = "") -> list[Service]:
    return mesh_services_of(service, options(line), host_address=HOST, open_ports=forwarded_ports([service]))


def test_a_port_of_the_mesh_is_at_the_managers_own_address() -> None:
    (found,) = announced(swarm_service(port(8080, 80)))
    assert (found.id, found.name) == ("node:shop@mesh:8080", "shop")
    assert (found.address, found.port, found.container) == (HOST, 8080, "")
    assert found.meta == {OWNER: "node"}
    (elsewhere,) = announced(swarm_service(port(8080, 80)), "-ip 203.0.113.4")
    assert elsewhere.address == "203.0.113.4"


def test_ports_have_names_and_attributes_by_the_port_of_the_container() -> None:
    service = swarm_service(
        port(8443, 443),
        port(8080, 80),
        port(8053, 53, "udp"),
        labels={"SERVICE_443_NAME": "tls", "SERVICE_TAGS": "edge", "SERVICE_53_IGNORE": "1"},
        container_labels={"SERVICE_TAGS": "hidden", "SERVICE_REGION": "eu"},
        env=("SERVICE_REGION=env",),
    )
    assert [(one.name, one.port, one.tags, one.meta.get("region")) for one in announced(service)] == [
        ("shop-80", 8080, ("edge",), "eu"),
        ("tls", 8443, ("edge",), "eu"),
    ]


@pytest.mark.parametrize(
    ("service", "line"),
    [
        (swarm_service(port(8080, 80), running=0), ""),
        (swarm_service(port(8080, 80)), "-internal"),
        (swarm_service(port(8080, 80)), "-explicit"),
        (swarm_service(port(8080, 80, mode="host")), ""),
        (swarm_service(port(0, 80)), ""),
        (swarm_service(), ""),
    ],
)
def test_what_nobody_forwards_is_not_announced(service: dict[str, Any], line: str) -> None:
    assert announced(service, line) == []


def test_a_port_on_which_docker_does_not_listen_is_not_announced() -> None:
    service = swarm_service(port(8080, 80), port(8053, 53, "udp"))
    found = mesh_services_of(service, options(), host_address=HOST, open_ports={"8053/udp", "8080/udp"})
    assert [(one.id, one.name) for one in found] == [("node:shop@mesh:8053:udp", "shop-53")]


@given(
    st.lists(
        st.builds(
            port, port_numbers, port_numbers, st.sampled_from(["tcp", "udp"]), st.sampled_from(["ingress", "host"])
        ),
        max_size=4,
        unique_by=lambda one: (one["PublishedPort"], one["Protocol"]),
    ),
    metadata,
    metadata,
)
def test_whatever_the_service_its_ports_have_distinct_ids_and_an_address(
    ports: list[dict[str, Any]], labels: dict[str, str], container_labels: dict[str, str]
) -> None:
    found = announced(swarm_service(*ports, labels=labels, container_labels=container_labels))
    assert len({one.id for one in found}) == len(found)
    for one in found:
        assert one.id.startswith("node:shop@mesh:")
        assert (one.address, one.meta[OWNER]) == (HOST, "node")
        assert CONTAINER not in one.meta
        assert one.name


def test_a_port_of_the_mesh_has_another_name_than_the_ports_of_the_hosts() -> None:
    (found,) = announced(swarm_service(port(8443, 443), port(8080, 80, mode="host")))
    assert (found.name, found.port) == ("shop-443", 8443)


# -- shared labels -----------------------------------------------------------------------------------------


@given(metadata)
def test_only_labels_of_services_are_shared(labels: dict[str, str]) -> None:
    shared = announced_labels(swarm_service(labels=labels))
    assert shared == {key: value for key, value in labels.items() if key.startswith("SERVICE_")}


@pytest.mark.parametrize(
    ("entry", "labels"),
    [
        (None, {}),
        (b"", {}),
        (b'{"SERVICE_TAGS": "a"}', {"SERVICE_TAGS": "a"}),
        (b'{"SERVICE_TAGS": 1, "SERVICE_NAME": "x"}', {"SERVICE_NAME": "x"}),
        (b"[]", {}),
        (b"no JSON", {}),
        (b"\xff\xff", {}),
    ],
)
def test_an_entry_that_holds_something_else_is_no_labels(entry: bytes | None, labels: dict[str, str]) -> None:
    assert decode_labels(None if entry is None else b64encode(entry).decode()) == labels


# -- a whole node ------------------------------------------------------------------------------------------


def test_a_task_is_announced_with_the_labels_that_its_service_has() -> None:
    task = container(
        name="shop.1.x",
        ports={"80/tcp": [("0.0.0.0", 8090)]},
        labels={"com.docker.swarm.service.id": "id-of-shop", "com.docker.swarm.service.name": "shop"},
    )
    (found,) = desired_services(
        {CONTAINER_ID: task}, [], options(), host_address=HOST, labels={"id-of-shop": {"SERVICE_TAGS": "blue"}}
    )
    assert (found.name, found.tags) == ("shop", ("blue",))


def test_of_two_containers_with_the_same_id_the_older_one_keeps_it() -> None:
    def twin(identity: str, created: str, published: int) -> dict[str, Any]:
        found = container(ports={"80/tcp": [("0.0.0.0", published)]}, env=("SERVICE_ID=same",))
        return {**found, "Id": identity, "Created": created}

    containers = {"new": twin("new", "2026-02-02", 81), "old": twin("old", "2026-01-01", 80)}
    (found,) = desired_services(containers, [], options(), host_address=HOST, labels={})
    assert found.port == 80


def test_containers_and_ports_of_the_mesh_are_announced_side_by_side() -> None:
    web = container(ports={"80/tcp": [("0.0.0.0", 8090)]})
    found = desired_services(
        {CONTAINER_ID: web},
        [swarm_service(port(8080, 80))],
        options(),
        host_address=HOST,
        labels={},
        open_ports={"8080/tcp"},
    )
    assert [one.id for one in found] == ["node:shop@mesh:8080", "node:web:80"]
