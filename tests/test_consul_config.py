"""The configuration of consul in the syntax of each version."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from harness import servers_yml

from swarmer.secrets.credentials import Credentials, consul_tokens
from swarmer.seed import consul as consul_config
from swarmer.spec import Spec
from swarmer.spec.file import load


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """Three servers and an agent."""
    (tmp_path / "servers.yml").write_text(servers_yml("10.97.1", count=4))
    return load(tmp_path / "servers.yml")


def render(spec: Spec, version: tuple[int, ...], *, number: int = 0, slowness: float = 1) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        names = [name for server in spec.servers for name in consul_tokens(server).values()]
        credentials = Credentials.create(Path(folder, "credentials.json"), names)
        return consul_config.render(spec, spec.servers[number], credentials, version=version, slowness=slowness)


@pytest.mark.parametrize("version", [(1, 8, 7), (1, 11, 0)])
def test_older_versions_have_tls_at_the_top(spec: Spec, version: tuple[int, ...]) -> None:
    config = render(spec, version)
    assert "tls" not in config
    assert "grpc_tls" not in config["ports"]
    assert config["verify_incoming"]
    assert config["verify_outgoing"]
    assert config["verify_server_hostname"]


@pytest.mark.parametrize("version", [(1, 12, 0), (1, 22, 1)])
def test_newer_versions_have_a_stanza_for_tls(spec: Spec, version: tuple[int, ...]) -> None:
    config = render(spec, version)
    assert not [name for name in config if name.startswith("verify_") or name.endswith("_file")]
    assert config["tls"]["defaults"]["verify_incoming"]
    assert config["tls"]["defaults"]["verify_outgoing"]
    assert config["tls"]["internal_rpc"]["verify_server_hostname"]
    assert config["ports"]["grpc_tls"] == -1


@pytest.mark.parametrize(
    ("version", "name"), [((1, 8, 7), "master"), ((1, 10, 12), "master"), ((1, 11, 0), "initial_management")]
)
def test_the_management_token_has_the_name_of_its_version(spec: Spec, version: tuple[int, ...], name: str) -> None:
    assert set(render(spec, version)["acl"]["tokens"]) == {name, "default"}


@pytest.mark.parametrize(("version", "name"), [((1, 8, 7), "ui"), ((1, 9, 0), "ui_config"), ((1, 22, 1), "ui_config")])
def test_the_web_interface_is_on(spec: Spec, version: tuple[int, ...], name: str) -> None:
    assert {"ui", "ui_config"} & set(render(spec, version)) == {name}


@pytest.mark.parametrize("version", [(1, 8, 7), (1, 22, 1)])
def test_an_agent_neither_votes_nor_knows_the_management_token(spec: Spec, version: tuple[int, ...]) -> None:
    server, agent = render(spec, version), render(spec, version, number=3)
    assert server["bootstrap_expect"] == server["autopilot"]["min_quorum"] == 3
    assert "bootstrap_expect" not in agent
    assert "autopilot" not in agent
    assert set(agent["acl"]["tokens"]) == {"default"}


def test_every_node_joins_all_servers_except_itself(spec: Spec) -> None:
    assert render(spec, (1, 8, 7))["retry_join"] == ["10.97.1.12", "10.97.1.13"]
    assert render(spec, (1, 8, 7), number=3)["retry_join"] == ["10.97.1.11", "10.97.1.12", "10.97.1.13"]


@pytest.mark.parametrize(
    ("slowness", "raft", "probe", "contact"),
    [(1, 1, "300ms", "1000ms"), (6.5, 7, "1950ms", "6500ms"), (30, 10, "9000ms", "30000ms")],
)
def test_gossip_and_raft_are_scaled_by_slowness(
    spec: Spec, slowness: float, raft: int, probe: str, contact: str
) -> None:
    config = render(spec, (1, 8, 7), slowness=slowness)
    assert config["performance"]["raft_multiplier"] == raft
    assert config["gossip_lan"]["probe_interval"] == probe
    assert config["gossip_lan"]["suspicion_mult"] == 4
    assert config["autopilot"]["last_contact_threshold"] == contact
