"""The seed data of a node's DNS."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from swarmer import resolv_conf
from swarmer.ledger import Ledger
from swarmer.seed import dns as node_dns
from swarmer.spec import Spec
from swarmer.spec import file as spec_file
from swarmer.stacks import stack_of
from swarmer.state import ClusterHome


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    nodes = "".join(f"  - {{name: n-{i}, memory: 512, cpus: 1, ip: 10.1.2.{i}}}\n" for i in range(11, 15))
    (tmp_path / "servers.yml").write_text(f"admin_network: 10.1.2.0/24\nstack: nspawn\ndc: dev\nservers:\n{nodes}")
    return spec_file.load(tmp_path / "servers.yml")


def test_a_consul_server_asks_itself_first_and_then_its_peers(spec: Spec) -> None:
    files = node_dns.files(spec, spec.servers[1], [])
    assert [line for line in files["/etc/swarmer/dns.conf"].splitlines() if line.startswith("server=/nspawn/")] == [
        "server=/nspawn/10.1.2.12#8601",
        "server=/nspawn/10.1.2.11#8601",
        "server=/nspawn/10.1.2.13#8601",
    ]
    assert [
        line for line in files["/etc/swarmer/dns-consul.conf"].splitlines() if line.startswith("server=/nspawn/")
    ] == [
        "server=/nspawn/127.0.0.1#8600",
        "server=/nspawn/10.1.2.11#8600",
        "server=/nspawn/10.1.2.13#8600",
    ]


def test_an_agent_asks_itself_and_all_consul_servers(spec: Spec) -> None:
    asked = node_dns.files(spec, spec.servers[3], [])["/etc/swarmer/dns.conf"]
    assert [f"server=/nspawn/10.1.2.{last}#8601" in asked for last in (11, 12, 13, 14)] == [True] * 4
    assert asked.startswith("listen-address=10.1.2.14\n")


def test_consul_is_asked_for_the_addresses_of_nodes_only(spec: Spec) -> None:
    files = node_dns.files(spec, spec.servers[0], [])
    for file in ("/etc/swarmer/dns.conf", "/etc/swarmer/dns-consul.conf"):
        asked = {line.split("/")[1] for line in files[file].splitlines() if line.startswith("server=/")}
        assert asked == {"nspawn", *(node.ip.reverse_pointer for node in spec.servers)}
    assert "rev-server=10.1.2.0/24\n" in files["/etc/swarmer/dns.conf"]


def test_in_a_part_of_a_zone_each_address_of_no_node_is_denied(spec: Spec) -> None:
    small = spec.model_copy(update={"admin_network": IPv4Network("10.1.2.8/29")})
    lines = node_dns.files(small, spec.servers[0], [IPv4Address("192.0.2.53")])["/etc/swarmer/dns.conf"].splitlines()
    denied = [line for line in lines if line.startswith(("local=", "rev-server="))]
    assert denied == [f"local=/{last}.2.1.10.in-addr.arpa/" for last in (8, 9, 10, 15)]


def test_names_outside_are_forwarded_to_the_resolvers_of_the_stack(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolv_conf, "reachable_from_nodes", lambda: [IPv4Address("192.0.2.53")])
    inside, outside = spec, spec.model_copy(update={"internet": True})
    assert "192.0.2.53" not in _asked(inside)
    assert "server=192.0.2.53\n" in _asked(outside)


def _asked(spec: Spec) -> str:
    """The configuration of a node's DNS, as its stack decides it."""
    stack = stack_of(Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image=""))
    return node_dns.files(spec, spec.servers[0], stack.resolvers())["/etc/swarmer/dns.conf"]


def test_a_resolver_that_only_the_host_reaches_is_not_for_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\nsearch .\n")
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", stub)
    monkeypatch.setattr(resolv_conf, "BEHIND_RESOLVED", real)
    monkeypatch.setattr(resolv_conf, "BEHIND_NETWORK_MANAGER", tmp_path / "none")
    assert resolv_conf.reachable_from_nodes() == []
    real.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    assert resolv_conf.reachable_from_nodes() == [IPv4Address("192.0.2.53")]


def test_without_resolvers_names_outside_do_not_exist(spec: Spec) -> None:
    assert "local=/#/\n" in node_dns.files(spec, spec.servers[0], [])["/etc/swarmer/dns.conf"]
    assert (
        "local=/#/" not in node_dns.files(spec, spec.servers[0], [IPv4Address("192.0.2.53")])["/etc/swarmer/dns.conf"]
    )


def test_names_between_the_domain_and_its_nodes_exist(spec: Spec) -> None:
    lines = node_dns.files(spec, spec.servers[0], [])["/etc/swarmer/dns.conf"].splitlines()
    names = {line.removeprefix("txt-record=") for line in lines if line.startswith("txt-record=")}
    assert {
        "nspawn",
        "service.nspawn",
        "dev.nspawn",
        "node.dev.nspawn",
        "service.dev.nspawn",
        "query.dev.nspawn",
    } <= names


def test_a_node_knows_its_own_name(spec: Spec) -> None:
    hosts = [line.split() for line in node_dns.files(spec, spec.servers[1], [])["/etc/hosts"].splitlines()]
    assert ["10.1.2.12", "n-12.node.dev.nspawn", "n-12"] in hosts
    assert ["127.0.0.1", "localhost"] in hosts


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("nameserver 192.0.2.53 # office\n", None),
        ("# B\xfcro\nnameserver 192.0.2.53\n", None),
        ("nameserver\t192.0.2.53\n", None),
        ("nameserver 127.0.0.1\n", "(127.0.0.1)"),
        ("nameserver 2001:db8::53\nnameserver fe80::1%eth0\n", "(2001:db8::53, fe80::1%eth0)"),
        (" nameserver 192.0.2.53\n#nameserver 192.0.2.54\nnameserver nowhere\nnameserver\n", "no DNS server"),
        ("", "no DNS server"),
    ],
)
def test_a_host_without_a_server_for_nodes_is_noted(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, noted: str | None
) -> None:
    (tmp_path / "resolv.conf").write_text(text, encoding="latin-1")
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", tmp_path / "resolv.conf")
    for other in ("BEHIND_RESOLVED", "BEHIND_NETWORK_MANAGER"):
        monkeypatch.setattr(resolv_conf, other, tmp_path / "none")
    for stack in ("nspawn", "vagrant"):
        reaching_out = spec.model_copy(update={"internet": True, "stack": stack})
        notes = stack_of(Ledger(ClusterHome(stack, spec.dc), spec=reaching_out, image="")).notes()
        assert len(notes) == (noted is not None)
        assert all(noted is not None and noted in note for note in notes)
    assert stack_of(Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image="")).notes() == []


def test_the_servers_behind_network_manager_are_for_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("RESOLV_CONF", "nameserver 127.0.1.1\n"), ("BEHIND_NETWORK_MANAGER", "nameserver 192.0.2.9\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(resolv_conf, name, tmp_path / name)
    monkeypatch.setattr(resolv_conf, "BEHIND_RESOLVED", tmp_path / "none")
    assert resolv_conf.reachable_from_nodes() == [IPv4Address("192.0.2.9")]
