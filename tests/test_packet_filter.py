"""The packet filter of a node: its seed data, and that nft accepts it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import servers_yml
from hypothesis import given
from strategies import specs

from swarmer.image.recipe import RECIPE
from swarmer.ports import PORTS
from swarmer.seed import packet_filter
from swarmer.spec import Spec
from swarmer.spec import file as spec_file

RULES = RECIPE / "rootfs/usr/share/swarmer/firewall.nft"


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    (tmp_path / "servers.yml").write_text(servers_yml("10.1.2", count=3))
    return spec_file.load(tmp_path / "servers.yml")


@pytest.fixture
def namespace() -> Iterator[str]:
    """A new network namespace."""
    name = "swarmer-test-filter"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@given(spec=specs())
def test_all_nodes_and_all_ports_among_them_are_defined(spec: Spec) -> None:
    (content,) = packet_filter.files(spec).values()
    defined = dict(re.findall(r"define (\w+) = (.*)", content))
    assert defined["nodes"].strip("{ }").split(", ") == [str(ip) for ip in sorted(s.ip for s in spec.servers)]
    for protocol in ("tcp", "udp"):
        ports = {port.number for port in PORTS if port.senders == "nodes" and protocol in port.protocols}
        assert set(map(int, defined[f"{protocol}_among_nodes"].strip("{ }").split(", "))) == ports


def test_every_definition_is_used_and_every_name_is_defined(spec: Spec) -> None:
    (content,) = packet_filter.files(spec).values()
    assert set(re.findall(r"define (\w+)", content)) == set(re.findall(r"\$(\w+)", RULES.read_text()))


def test_the_table_is_replaced_in_one_step_and_others_stay(spec: Spec, namespace: str, tmp_path: Path) -> None:
    """As when reloading, with docker's tables present."""

    def nft(*words: str, input: str | None = None) -> str:
        command = ["ip", "netns", "exec", namespace, "nft", *words]
        return subprocess.run(command, input=input, capture_output=True, text=True, check=True).stdout

    ((path, content),) = packet_filter.files(spec).items()
    (tmp_path / "definitions").write_text(content)
    (tmp_path / "rules").write_text(RULES.read_text().replace(path, str(tmp_path / "definitions")))
    nft("add", "table", "ip", "docker")
    nft("--file", str(tmp_path / "rules"))
    first = nft("list", "ruleset")
    nft("add", "chain", "inet", "swarmer", "left-over")
    nft("--file", str(tmp_path / "rules"))
    assert nft("list", "ruleset") == first
    assert "table ip docker" in first
