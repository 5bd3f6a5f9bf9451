"""The original project's `bin/consul` and `bin/dns`, word for word where that still makes sense."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.commands import RunHere, SucceedHere, process_group
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults

# -- bin/consul --------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_bin_consul_is_the_consul_client(cluster: Cluster, succeed_here: SucceedHere, run_here: RunHere) -> None:
    members = succeed_here("./bin/consul $CLUSTER members").splitlines()[1:]
    assert {line.split()[0] for line in members} == {node.name for node in cluster.nodes}
    succeed_here("./bin/consul $CLUSTER kv put commands/color 'sky blue'")
    assert succeed_here("./bin/consul $CLUSTER kv get commands/color") == "sky blue\n"
    assert run_here("./bin/consul $CLUSTER kv get commands/nothing").returncode == 1


def test_bin_consul_sends_requests(cluster: Cluster, succeed_here: SucceedHere, run_here: RunHere) -> None:
    nodes = json.loads(succeed_here("./bin/consul $CLUSTER GET /v1/catalog/nodes"))
    assert {node["Node"] for node in nodes} == {node.name for node in cluster.nodes}
    assert succeed_here("./bin/consul $CLUSTER PUT /v1/kv/commands/request hello") == "true\n"
    assert succeed_here("echo from-stdin | ./bin/consul $CLUSTER PUT /v1/kv/commands/request -") == "true\n"
    assert succeed_here("./bin/consul $CLUSTER GET '/v1/kv/commands/request?raw'") == "from-stdin\n"
    missing = run_here("./bin/consul $CLUSTER GET /v1/kv/commands/nothing")
    assert (missing.returncode, missing.stderr) == (1, "404 Not Found\n")


def test_bin_consul_uses_the_nodes_client_where_the_image_is_not_at_hand(
    cluster: Cluster, succeed_here: SucceedHere, tmp_path: Path
) -> None:
    told = succeed_here("./bin/consul $CLUSTER members", SWARMER_CACHE=str(tmp_path))
    assert all(node.name in told for node in cluster.nodes)
    assert succeed_here("./bin/consul $CLUSTER kv put commands/ssh 'a  b'", SWARMER_CACHE=str(tmp_path))
    assert succeed_here("./bin/consul $CLUSTER kv get commands/ssh") == "a  b\n"


def test_no_secret_stands_on_a_command_line(cluster: Cluster, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = ["./bin/consul", cluster.name, "kv", "put", "commands/fifo", f"@{fifo}"]
    with process_group(command, stdout=subprocess.DEVNULL) as process:
        # Without O_NONBLOCK it would wait for the client forever, also for one that has ended.
        opened = cluster.until(
            "the client to read the fifo",
            lambda: os.open(fifo, os.O_WRONLY | os.O_NONBLOCK),
            timeout=20,
            retry_on=(OSError,),
        )
        with os.fdopen(opened, "w") as writer:
            shown = b"\n".join(_command_lines()).decode(errors="replace")
            assert f"@{fifo}" in shown
            assert cluster.credentials.mask(shown) == shown
            writer.write("x")
        assert process.wait(timeout=cluster.scaled(10)) == 0


def test_with_the_consul_leader_down_another_server_is_asked(
    cluster: Cluster, consul_leader: Node, faults: Faults, succeed_here: SucceedHere
) -> None:
    if len(cluster.consul_servers) < 3:
        pytest.skip("needs three consul servers")
    with faults.power_off(consul_leader):
        assert consul_leader.name in succeed_here("./bin/consul $CLUSTER members")


# -- bin/dns -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0 or bool(shutil.which("resolvectl")), reason="needs root and no systemd-resolved")
def test_bin_dns_makes_the_host_resolve_the_cluster(
    cluster: Cluster, succeed_here: SucceedHere, tmp_path: Path
) -> None:
    node = cluster.nodes[-1]
    name = f"{node.name}.node.$DOMAIN"
    before = Path("/etc/resolv.conf").read_text()
    own = tmp_path / "resolv.conf"
    own.write_text(before)
    # In a mount namespace: the host's other programs are not to notice.
    in_private = f"unshare --mount sh -ec 'mount --make-rprivate /; mount --bind {own} /etc/resolv.conf; {{}}'"
    told = succeed_here(in_private.format(f"./bin/dns $DOMAIN {node.ip}; getent ahostsv4 {name}"))
    assert str(node.ip) in told.splitlines()[-1]
    told = succeed_here(
        in_private.format(
            f".venv/bin/swarmer dns up $CLUSTER; getent ahostsv4 {name}; .venv/bin/swarmer dns down $CLUSTER;"
            f"getent ahostsv4 {name} || echo unknown"
        )
    )
    assert str(node.ip) in told
    assert told.endswith("unknown\n")
    assert own.read_text() == before


# -- what the promises are made of -------------------------------------------------------------------------


def _command_lines() -> Iterator[bytes]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
