"""From a container to its services: ports, addresses, names, IDs, tags and metadata."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registrator_strategies import CONTAINER_ID, Inspection, container, containers, metadata

from swarmer.node.registrator.addresses import BRIDGES, is_published_on_one_address
from swarmer.node.registrator.command_line import parse
from swarmer.node.registrator.metadata import MAX_META_PAIRS, MAX_META_VALUE
from swarmer.node.registrator.options import Options
from swarmer.node.registrator.services import (
    CONTAINER,
    OWNER,
    Service,
    distinct,
    has_failed,
    image_name,
    is_dns_label,
    services_of,
)

HOST = "192.168.1.10"


def options(line: str = "") -> Options:
    return parse([*line.split(), "-hostname", "node", "consul://127.0.0.1"], {})


def services(inspection: Inspection, line: str = "", **more: Any) -> list[Service]:
    return services_of(inspection, options(line), host_address=HOST, **more)


def only(inspection: Inspection, line: str = "", **more: Any) -> Service:
    (service,) = services(inspection, line, **more)
    return service


def at(service: Service) -> str:
    return f"{service.address}:{service.port}"


WEB = {"80/tcp": [("0.0.0.0", 8080)]}
TWO = {"80/tcp": [("0.0.0.0", 8080)], "443/tcp": [("0.0.0.0", 8443)]}

# -- ports -------------------------------------------------------------------------------------------------


def test_a_published_port_is_a_service() -> None:
    service = only(container(ports=WEB))
    assert (service.id, service.name, at(service)) == ("node:web:80", "web", f"{HOST}:8080")
    assert service.meta == {OWNER: "node", CONTAINER: CONTAINER_ID[:12]}
    assert (service.tags, service.checks) == ((), ())


def test_an_unpublished_port_is_none_unless_internal() -> None:
    inspection = container(exposed=("80/tcp",))
    assert services(inspection) == []
    assert at(only(inspection, "-internal")) == "172.17.0.2:80"


def test_internal_announces_a_published_port_by_its_own_number_too() -> None:
    assert at(only(container(ports=WEB), "-internal")) == "172.17.0.2:80"


@pytest.mark.parametrize(
    ("bindings", "where"),
    [
        ([("192.0.2.7", 81), ("0.0.0.0", 82)], "192.0.2.7:81"),
        ([("127.0.0.1", 81), ("0.0.0.0", 82)], f"{HOST}:82"),
        ([("::1", 81), ("127.0.0.1", 82), ("192.0.2.7", 83)], "192.0.2.7:83"),
        ([("172.17.0.1", 81), ("0.0.0.0", 82)], f"{HOST}:82"),
        ([("169.254.1.1", 81), ("0.0.0.0", 82)], f"{HOST}:82"),
        ([("::", 81), ("0.0.0.0", 82)], f"{HOST}:82"),
        ([("0.0.0.0", 0), ("0.0.0.0", 82)], f"{HOST}:82"),
    ],
)
def test_the_first_binding_that_others_reach_counts(bindings: list[tuple[str, int]], where: str) -> None:
    inspection = {**container(ports={"80/tcp": bindings}), BRIDGES: ["172.17.0.1"]}
    assert at(only(inspection)) == where


def test_a_port_on_a_bridge_of_docker_is_at_no_address_that_others_reach() -> None:
    inspection = {**container(ports={"80/tcp": [("172.17.0.1", 8080)]}), BRIDGES: ["172.17.0.1", "172.18.0.1"]}
    assert services(inspection) == []
    assert services(inspection, "-ip 203.0.113.5") == []
    assert at(only(inspection, "-internal")) == "172.17.0.2:80"
    written = {**container(ports={"80/tcp": [("fd00::1", 8080)]}), BRIDGES: ["FD00:0:0::1"]}
    assert services(written) == []


def test_all_addresses_of_a_family_are_the_hosts_of_that_family() -> None:
    six = {"80/tcp": [("0.0.0.0", 8080), ("::", 8081)]}
    assert at(only(container(ports=six), "-ip 2001:db8::1")) == "2001:db8::1:8081"
    assert services(container(ports={"80/tcp": [("::", 8081)]})) == []


@pytest.mark.parametrize(
    ("address", "asks"), [("172.17.0.1", True), ("192.0.2.7", True), ("0.0.0.0", False), ("::", False), ("", False)]
)
def test_docker_is_asked_for_its_bridges_when_a_port_may_be_on_one(address: str, asks: bool) -> None:
    assert is_published_on_one_address(container(ports={"80/tcp": [(address, 8080)], "81/tcp": None})) == asks


def test_the_protocol_defaults_to_tcp() -> None:
    service = only(container(ports={"80": [("0.0.0.0", 8080)]}))
    assert (service.id, service.tags) == ("node:web:80", ())


def test_a_host_network_container_is_at_the_host() -> None:
    inspection = container(exposed=("80/tcp",), network="host", networks={"host": {"IPAddress": ""}})
    assert at(only(inspection)) == at(only(inspection, "-internal")) == f"{HOST}:80"


def test_a_container_that_does_not_run_has_none() -> None:
    for state in ({"Running": False}, {"Restarting": True}, {"Dead": True}):
        assert services(container(ports=WEB, state=state)) == []


# -- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("everywhere", ["0.0.0.0", ""])
def test_a_port_on_all_addresses_is_at_the_hosts(everywhere: str) -> None:
    inspection = container(ports={"80/tcp": [(everywhere, 8080)]})
    assert only(inspection).address == HOST
    assert only(inspection, "-ip 203.0.113.5").address == "203.0.113.5"


def test_a_port_on_the_loopback_is_at_no_address_that_others_reach() -> None:
    for loopback in ("127.0.0.1", "127.1.2.3", "::1"):
        inspection = container(ports={"80/tcp": [(loopback, 8080)]})
        assert services(inspection) == []
        assert services(inspection, "-ip 203.0.113.5") == []
        assert at(only(inspection, "-internal")) == "172.17.0.2:80"


@pytest.mark.parametrize("given", ["10.1.2.3", "10.1.2.3/24"])
def test_the_address_of_a_label_wins(given: str) -> None:
    inspection = container(ports=WEB, labels={"where": given})
    for line in ("-useIpFromLabel where", "-internal -useIpFromLabel where", "-ip 9.9.9.9 -useIpFromLabel where"):
        assert only(inspection, line).address == "10.1.2.3"


@pytest.mark.parametrize("given", ["", "here", "10.1.2.3.4", "10.1/16"])
def test_a_label_without_an_address_counts_for_nothing(given: str) -> None:
    assert only(container(ports=WEB, labels={"where": given}), "-useIpFromLabel where").address == HOST


def test_a_shared_network_is_where_the_other_container_is() -> None:
    inspection = container(exposed=("80/tcp",), network="container:other")
    other = container(network="back", networks={"back": {"IPAddress": "10.0.5.6"}})
    assert at(only(inspection, network_container=other)) == "10.0.5.6:80"
    on_host = container(network="host", networks={"host": {"IPAddress": ""}})
    assert at(only(inspection, network_container=on_host)) == f"{HOST}:80"
    assert services(inspection, network_container=None) == []


def test_an_overlay_network_gives_the_containers_address_in_it() -> None:
    networks = {"ingress": {"IPAddress": "10.0.0.5"}, "shop": {"IPAddress": "10.0.7.5"}}
    inspection = container(ports=WEB, network="shop", networks=networks)
    assert at(only(inspection)) == f"{HOST}:8080"
    assert at(only(inspection, "-internal")) == "10.0.7.5:80"
    only_mesh = container(ports=WEB, network="default", networks={"ingress": {"IPAddress": "10.0.0.5"}})
    assert services(only_mesh, "-internal") == []


def test_of_several_networks_the_one_it_was_started_in_counts() -> None:
    networks = {"a": {"IPAddress": "10.0.1.1"}, "z": {"IPAddress": "10.0.2.1"}}
    assert only(container(ports=WEB, network="z", networks=networks), "-internal").address == "10.0.2.1"
    assert only(container(ports=WEB, network="gone", networks=networks), "-internal").address == "10.0.1.1"


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "nginx"),
        ("nginx:1.2", "nginx"),
        ("library/nginx:1.2", "nginx"),
        ("registry.example:5000/team/nginx", "nginx"),
        ("registry.example:5000/team/nginx:1.2@sha256:" + "a" * 64, "nginx"),
        ("nginx@sha256:" + "a" * 64, "nginx"),
        ("sha256:" + "ab" * 32, ""),
        ("ab" * 32, ""),
        ("abababababab", ""),
        ("deadbeef", "deadbeef"),
        ("", ""),
    ],
)
def test_the_name_of_an_image(image: str, name: str) -> None:
    assert image_name(image, "sha256:" + "ab" * 32) == name


def test_a_container_of_a_nameless_image_has_its_own_name() -> None:
    by_id: dict[str, Any] = {"image": "sha256:" + "ab" * 32, "ports": WEB}
    assert only(container(name="mine", **by_id)).name == "mine"
    assert only(container(name="p-x-1", labels={"com.docker.compose.service": "x"}, **by_id)).name == "x"


@pytest.mark.parametrize(
    ("image", "name"), [("team/my.app:1", "my-app"), ("a..b", "a-b"), ("web_v2", "web_v2"), ("x" * 70, "x" * 70)]
)
def test_a_default_name_is_made_valid_in_dns_but_never_cut(image: str, name: str) -> None:
    assert only(container(ports=WEB, image=image)).name == name
    assert only(container(ports=WEB, image="sha256:" + "ab" * 32, name="my.app")).name == "my-app"


@pytest.mark.parametrize("name", ["my.app", "a@b", "Web", "x" * 70])
def test_a_given_name_is_taken_as_it_is(name: str) -> None:
    assert only(container(ports=WEB, env=(f"SERVICE_NAME={name}",))).name == name


@pytest.mark.parametrize(
    ("name", "is_label"),
    [
        *((name, True) for name in ("web", "Web_2", "_x", "9", "x" * 63)),
        *((name, False) for name in ("my.app", "a@b", "x" * 64, "-a", "a-", "é", "")),
    ],
)
def test_which_names_resolve(name: str, is_label: bool) -> None:
    assert is_dns_label(name) == is_label


def test_several_ports_have_names_with_the_port() -> None:
    assert [service.name for service in services(container(ports=TWO))] == ["web-80", "web-443"]
    named = container(ports=TWO, env=("SERVICE_NAME=shop",))
    assert [service.name for service in services(named)] == ["shop-80", "shop-443"]
    of_port = container(ports=TWO, env=("SERVICE_NAME=shop", "SERVICE_443_NAME=secure"))
    assert [service.name for service in services(of_port)] == ["shop-80", "secure"]


def test_only_what_is_published_makes_several_ports() -> None:
    assert only(container(ports=WEB, exposed=("443/tcp",))).name == "web"
    assert len(services(container(ports=WEB, exposed=("443/tcp",)), "-internal")) == 2


def test_explicit_wants_a_name() -> None:
    assert services(container(ports=TWO), "-explicit") == []
    of_port = container(ports=TWO, env=("SERVICE_443_NAME=secure",))
    assert [service.name for service in services(of_port, "-explicit")] == ["secure"]


def test_a_container_or_a_port_can_be_ignored() -> None:
    assert services(container(ports=TWO, env=("SERVICE_IGNORE=true",))) == []
    (service,) = services(container(ports=TWO, env=("SERVICE_443_IGNORE=1",)))
    assert (service.id, service.name) == ("node:web:80", "web-80")


# -- metadata, tags, IDs -----------------------------------------------------------------------------------


def test_labels_win_over_the_environment_and_the_port_over_the_container() -> None:
    inspection = container(
        ports=WEB,
        env=("SERVICE_80_REGION=port-env", "SERVICE_ZONE=env", "SERVICE_SIZE=env"),
        labels={"SERVICE_REGION": "label", "SERVICE_ZONE": "label", "SERVICE_8080_SIZE": "of the published port"},
    )
    assert {"region": "port-env", "zone": "label", "size": "env"}.items() <= only(inspection).meta.items()


def test_labels_of_the_swarm_service_win_over_those_of_its_task() -> None:
    inspection = container(ports=WEB, labels={"SERVICE_TAGS": "task", "com.docker.swarm.service.name": "shop"})
    service = only(inspection, service_labels={"SERVICE_TAGS": "service"})
    assert (service.name, service.tags) == ("shop", ("service",))


def test_udp_is_a_tag_and_part_of_the_id() -> None:
    service = only(container(ports={"53/udp": [("0.0.0.0", 53)]}, env=("SERVICE_TAGS=dns",)), "-tags everywhere")
    assert (service.id, service.tags) == ("node:web:53:udp", ("dns", "everywhere", "udp"))


def test_a_given_id_is_taken() -> None:
    assert only(container(ports=WEB, env=("SERVICE_ID=mine",))).id == "mine"
    ids = [service.id for service in services(container(ports=TWO, env=("SERVICE_ID=mine", "SERVICE_443_ID=tls")))]
    assert ids == ["mine:80", "tls"]


def test_the_earlier_of_two_with_the_same_id_stays() -> None:
    first, second = (only(container(ports=WEB, name=name, env=("SERVICE_ID=same",))) for name in ("one", "two"))
    assert distinct([first, second]) == [first]


def test_other_attributes_are_metadata_and_nothing_else_is() -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.swarm.task.id": "x", "maintainer": "me"}
    service = only(container(ports=WEB, env=("SERVICE_Region=eu", "PATH=/bin", "SERVICE_CHECK_TCP=1"), labels=labels))
    assert service.meta.keys() - {"registrator-checks"} == {OWNER, CONTAINER, "region"}
    assert service.tags == ()


def test_metadata_stays_within_consuls_limits() -> None:
    env = [f"SERVICE_K{number}=v" for number in range(100)]
    service = only(container(ports=WEB, env=(*env, "SERVICE_LONG=" + "x" * (MAX_META_VALUE + 1))))
    assert len(service.meta) <= MAX_META_PAIRS
    assert "long" not in service.meta


@pytest.mark.parametrize(("code", "is_failure"), [(0, False), (1, True), (127, True), (137, False), (143, False)])
def test_which_exits_are_failures(code: int, is_failure: bool) -> None:
    ended = {"Running": False, "Status": "exited", "ExitCode": code}
    assert has_failed(container(state=ended)) == is_failure
    assert not has_failed(container())


# -- whatever the container --------------------------------------------------------------------------------

LINES = st.sampled_from(
    ["", "-internal", "-explicit", "-internal -useIpFromLabel SERVICE_REGION", "-ip 10.9.9.9 -ttl 30 -ttl-refresh 10"]
)


@given(containers(), LINES, st.none() | containers(), st.none() | metadata)
def test_whatever_the_container_its_services_are_such_as_consul_takes(
    inspection: Inspection, line: str, network: Inspection | None, labels: dict[str, str] | None
) -> None:
    made = services(inspection, line, network_container=network, service_labels=labels)
    for service in made:
        assert service.name
        assert service.id
        assert 0 < service.port < 65536
        assert not ipaddress.ip_address(service.address).is_unspecified
        assert service.meta[OWNER] == "node"
        assert service.meta[CONTAINER] == CONTAINER_ID[:12]
        assert len(service.meta) <= MAX_META_PAIRS
        assert all(
            key and len(key) <= 128 and len(value.encode()) <= MAX_META_VALUE for key, value in service.meta.items()
        )
        assert len(set(service.tags)) == len(service.tags)
        assert all(tag and tag == tag.strip() for tag in service.tags)
        assert len({check.id for check in service.checks}) == len(service.checks)
    assert made == services(inspection, line, network_container=network, service_labels=labels)


@given(containers())
def test_a_variable_that_is_not_of_services_changes_nothing(inspection: Inspection) -> None:
    before = services(inspection)
    inspection["Config"]["Env"].append("XSERVICE_NAME=other")
    inspection["Config"]["Labels"]["com.docker.compose.service"] = inspection["Name"].lstrip("/")
    assert services(inspection) == before


@given(containers(), st.randoms())
def test_the_order_in_which_docker_lists_things_changes_nothing(inspection: Inspection, random: Any) -> None:
    before = services(inspection)
    for part in (
        inspection["Config"]["Labels"],
        inspection["Config"]["ExposedPorts"],
        inspection["NetworkSettings"]["Ports"],
    ):
        items = list(part.items())
        random.shuffle(items)
        part.clear()
        part.update(items)
    assert services(inspection) == before
