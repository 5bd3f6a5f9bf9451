"""The consul client that `swarmer consul` runs."""

from pathlib import Path

import pytest
from fake_node import FakeCluster

from swarmer.commands import consul

#: What the image's own client does on this host, and whose client is run.
CLIENTS = {
    "runs": ("exit 0", "consul"),
    "hangs": ("exec sleep 60", "ssh"),
    "fails": ("exit 1", "ssh"),
}


@pytest.mark.parametrize(("script", "program"), CLIENTS.values(), ids=CLIENTS)
def test_a_client_that_does_not_run_on_this_host_is_replaced_by_the_nodes_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, program: str
) -> None:
    monkeypatch.setattr(consul, "_VERSION_TIMEOUT", 10 if program == "consul" else 0.5)
    monkeypatch.setattr(consul, "store", lambda: tmp_path)
    monkeypatch.setattr(consul, "answering", lambda cluster: cluster.nodes[0])
    client = tmp_path / "layer/root/usr/bin/consul"
    client.parent.mkdir(parents=True)
    client.write_text(f"#!/bin/sh\n{script}\n")
    client.chmod(0o755)
    fakes = FakeCluster()
    fakes.manage()
    command = consul.command(fakes, ["members"])
    assert Path(command.words[0]).name == program
    assert "members" in command.words[-1]
    assert command.environment["CONSUL_HTTP_TOKEN"] == fakes.credentials.management_token
