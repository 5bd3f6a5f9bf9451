"""The original project's command lines, word for word where they still make sense, and what belongs to them."""

import json
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.spec import SwarmRole

REPOSITORY = Path(__file__).parent.parent

Run = Callable[..., subprocess.CompletedProcess[str]]

needs_docker = pytest.mark.skipif(not shutil.which("docker"), reason="needs a docker client on this host")


@pytest.fixture
def run(cluster: Cluster) -> Run:
    """Runs a command line of the original, for the cluster of this run in the place of `vagrant:dev`."""

    def run(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = line.replace("vagrant:dev", cluster.name).replace("dev.vagrant", cluster.spec.domain)
        return subprocess.run(
            command,
            shell=True,
            cwd=REPOSITORY,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def succeed(run: Run) -> Callable[..., str]:
    """What a command line prints that must succeed."""

    def succeed(line: str, **variables: str) -> str:
        done = run(line, **variables)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    return succeed


@pytest.fixture
def containers(cluster: Cluster) -> Iterator[None]:
    """Whatever containers a scenario runs, they are gone after it."""
    yield
    for node in cluster.nodes:
        node.succeed("docker ps -aq --filter label=by=test_commands | xargs -r docker rm -f")


# -- bin/swarm ---------------------------------------------------------------------------------------------


def test_bin_swarm_run_it_is_a_shell_in_a_container(cluster: Cluster, busybox_image: str) -> None:
    line = f"./bin/swarm {cluster.name} run --rm -it {busybox_image} /bin/sh"
    said = _on_a_terminal(line, "echo $((6 * 7)); tty; exit 3\n")
    assert "42" in said.output
    assert "/dev/pts/" in said.output
    assert said.status == 3


def test_bin_swarm_run_attaches_and_ends_with_the_containers_status(run: Run, busybox_image: str) -> None:
    done = run(f"./bin/swarm vagrant:dev run --rm {busybox_image} sh -c 'echo out; echo err >&2; exit 5'")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")


@pytest.mark.usefixtures("containers")
def test_bin_swarm_run_takes_the_least_loaded_node(
    cluster: Cluster, succeed: Callable[..., str], busybox_image: str
) -> None:
    workers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.MANAGER]
    for _ in workers:
        succeed(f"./bin/swarm vagrant:dev run -d --label by=test_commands {busybox_image} sleep 300")
    assert _placed(cluster) == {node.name: int(node in workers) for node in cluster.nodes}


@pytest.mark.usefixtures("containers")
def test_bin_swarm_run_keeps_the_classic_constraints(
    cluster: Cluster, run: Run, succeed: Callable[..., str], busybox_image: str
) -> None:
    chosen = next(node for node in reversed(cluster.nodes) if node.server.swarm is not SwarmRole.MANAGER)
    line = f"./bin/swarm vagrant:dev run --label by=test_commands -d -e constraint:node=={{}} {busybox_image} sleep 300"
    for _ in range(2):
        succeed(line.format(chosen.name))
    assert _placed(cluster)[chosen.name] == 2
    refused = run(line.format("nobody"))
    assert refused.returncode == 1
    assert f"error: no node of {cluster.name} can run this" in refused.stderr


@pytest.mark.usefixtures("containers")
def test_bin_swarm_ps_shows_all_nodes(cluster: Cluster, succeed: Callable[..., str], busybox_image: str) -> None:
    for node in cluster.nodes:
        node.succeed(f"docker run -d --name on-{node.name} --label by=test_commands {busybox_image} sleep 300")
    header, *rows = succeed("./bin/swarm vagrant:dev ps").splitlines()
    assert header.split()[:3] == ["NODE", "CONTAINER", "ID"]
    places = {row.split()[-1]: row.split()[0] for row in rows}
    assert places == places | {f"on-{node.name}": node.name for node in cluster.nodes}
    assert len(succeed("./bin/swarm vagrant:dev ps -q --filter label=by=test_commands").split()) == len(cluster.nodes)


def test_bin_swarm_images_shows_all_nodes(cluster: Cluster, succeed: Callable[..., str], busybox_image: str) -> None:
    name, tag = busybox_image.split(":")
    header, *rows = succeed("./bin/swarm vagrant:dev images").splitlines()
    assert header.split()[:3] == ["NODE", "REPOSITORY", "TAG"]
    having = {row.split()[0] for row in rows if row.split()[1:3] == [name, tag]}
    assert having == {node.name for node in cluster.nodes}


def test_bin_swarm_pull_asks_every_node(cluster: Cluster, run: Run) -> None:
    done = run("./bin/swarm vagrant:dev pull nowhere.invalid/image")
    assert done.returncode == 1
    for node in cluster.nodes:
        assert re.search(rf"^{node.name} +\| .*nowhere\.invalid", done.stderr, re.MULTILINE), done.stderr
        assert node.name in done.stderr.splitlines()[-1]


def test_everything_else_is_passed_on_to_a_manager(cluster: Cluster, succeed: Callable[..., str], run: Run) -> None:
    listed = succeed("./bin/swarm vagrant:dev node ls --format '{{.Hostname}}'").split()
    assert sorted(listed) == sorted(node.name for node in cluster.nodes)
    wrong = run("./bin/swarm vagrant:dev nonsense")
    assert wrong.returncode != 0
    assert "nonsense" in wrong.stderr


def test_one_node_can_be_asked(cluster: Cluster, succeed: Callable[..., str]) -> None:
    for node in cluster.nodes:
        told = succeed(f".venv/bin/swarmer docker --node {node.name} vagrant:dev info --format '{{{{.Name}}}}'")
        assert told.strip() == node.name


def test_with_a_manager_down_another_is_asked(
    cluster: Cluster, faults: Faults, succeed: Callable[..., str], busybox_image: str
) -> None:
    managers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.AGENT]
    if len(managers) < 3:
        pytest.skip("needs three swarm managers")
    with faults.power_off(managers[0]):
        assert succeed("./bin/swarm vagrant:dev info --format '{{.Name}}'").strip() in {m.name for m in managers[1:]}
        assert succeed(f"./bin/swarm vagrant:dev run --rm {busybox_image} echo alive") == "alive\n"
        assert managers[1].name in succeed("./bin/swarm vagrant:dev images")
        assert f"tcp://{managers[0].ip}:" not in succeed(".venv/bin/swarmer env vagrant:dev")


def test_without_a_docker_client_on_the_host_the_nodes_own_is_used(
    run: Run, busybox_image: str, tmp_path: Path
) -> None:
    for tool in ("sh", "ssh", "dirname", "readlink", "systemd-nspawn"):
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    line = f"./bin/swarm vagrant:dev run --rm {busybox_image} sh -c 'echo \"a  b\"; exit 6'"
    done = run(line, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (6, "a  b\n"), done.stderr
    assert "NODE" in run("./bin/swarm vagrant:dev ps", PATH=str(tmp_path)).stdout


@needs_docker
def test_env_is_all_that_the_plain_docker_client_needs(cluster: Cluster, succeed: Callable[..., str]) -> None:
    listed = succeed('eval "$(.venv/bin/swarmer env vagrant:dev)" && docker node ls --format "{{.Hostname}}"')
    assert sorted(listed.split()) == sorted(node.name for node in cluster.nodes)


@needs_docker
def test_a_context_is_all_that_the_plain_docker_client_needs(
    cluster: Cluster, succeed: Callable[..., str], tmp_path: Path
) -> None:
    name = f"swarmer-{cluster.name.replace(':', '-')}"
    for _ in range(2):  # made, and brought up to date
        succeed(".venv/bin/swarmer context vagrant:dev", DOCKER_CONFIG=str(tmp_path))
    listed = succeed(f"docker --context {name} node ls --format '{{{{.Hostname}}}}'", DOCKER_CONFIG=str(tmp_path))
    assert sorted(listed.split()) == sorted(node.name for node in cluster.nodes)


# -- bin/consul --------------------------------------------------------------------------------------------


def test_bin_consul_is_the_consul_client(cluster: Cluster, succeed: Callable[..., str], run: Run) -> None:
    members = succeed("./bin/consul vagrant:dev members").splitlines()[1:]
    assert {line.split()[0] for line in members} == {node.name for node in cluster.nodes}
    succeed("./bin/consul vagrant:dev kv put commands/color 'sky blue'")
    assert succeed("./bin/consul vagrant:dev kv get commands/color") == "sky blue\n"
    assert run("./bin/consul vagrant:dev kv get commands/nothing").returncode == 1


def test_bin_consul_sends_requests(cluster: Cluster, succeed: Callable[..., str], run: Run) -> None:
    nodes = json.loads(succeed("./bin/consul vagrant:dev GET /v1/catalog/nodes"))
    assert {node["Node"] for node in nodes} == {node.name for node in cluster.nodes}
    assert succeed("./bin/consul vagrant:dev PUT /v1/kv/commands/request hello") == "true\n"
    assert succeed("echo from-stdin | ./bin/consul vagrant:dev PUT /v1/kv/commands/request -") == "true\n"
    assert succeed("./bin/consul vagrant:dev GET '/v1/kv/commands/request?raw'") == "from-stdin\n"
    missing = run("./bin/consul vagrant:dev GET /v1/kv/commands/nothing")
    assert (missing.returncode, missing.stderr) == (1, "404 Not Found\n")


def test_bin_consul_uses_the_nodes_client_where_the_image_is_not_at_hand(
    cluster: Cluster, succeed: Callable[..., str], tmp_path: Path
) -> None:
    told = succeed("./bin/consul vagrant:dev members", SWARMER_CACHE=str(tmp_path))
    assert all(node.name in told for node in cluster.nodes)
    assert succeed("./bin/consul vagrant:dev kv put commands/ssh 'a  b'", SWARMER_CACHE=str(tmp_path))
    assert succeed("./bin/consul vagrant:dev kv get commands/ssh") == "a  b\n"


def test_no_secret_stands_on_a_command_line(cluster: Cluster, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = ["./bin/consul", cluster.name, "kv", "put", "commands/fifo", f"@{fifo}"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
        with fifo.open("w") as writer:  # opens when the client reads
            shown = b"\n".join(_command_lines()).decode(errors="replace")
            assert f"@{fifo}" in shown
            assert cluster.credentials.mask(shown) == shown
            writer.write("x")
        assert process.wait(timeout=10) == 0


def test_with_the_consul_leader_down_another_server_is_asked(
    cluster: Cluster, consul_leader: Node, faults: Faults, succeed: Callable[..., str]
) -> None:
    if len(cluster.consul_servers) < 3:
        pytest.skip("needs three consul servers")
    with faults.power_off(consul_leader):
        assert consul_leader.name in succeed("./bin/consul vagrant:dev members")


# -- bin/dns -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0 or bool(shutil.which("resolvectl")), reason="needs root and no systemd-resolved")
def test_bin_dns_makes_the_host_resolve_the_cluster(
    cluster: Cluster, succeed: Callable[..., str], tmp_path: Path
) -> None:
    node = cluster.nodes[-1]
    name = f"{node.name}.node.dev.vagrant"
    before = Path("/etc/resolv.conf").read_text()
    own = tmp_path / "resolv.conf"
    own.write_text(before)
    # In a mount namespace: the host's other programs are not to notice.
    in_private = f"unshare --mount sh -ec 'mount --make-rprivate /; mount --bind {own} /etc/resolv.conf; {{}}'"
    told = succeed(in_private.format(f"./bin/dns dev.vagrant {node.ip}; getent ahostsv4 {name}"))
    assert str(node.ip) in told.splitlines()[-1]
    told = succeed(
        in_private.format(
            f".venv/bin/swarmer dns up vagrant:dev; getent ahostsv4 {name}; .venv/bin/swarmer dns down vagrant:dev;"
            f"getent ahostsv4 {name} || echo unknown"
        )
    )
    assert str(node.ip) in told
    assert told.endswith("unknown\n")
    assert own.read_text() == before


# -- what the promises are made of -------------------------------------------------------------------------


def _placed(cluster: Cluster) -> dict[str, int]:
    """How many containers of these scenarios run on each node."""
    return {
        node.name: len(node.succeed("docker ps -q --filter label=by=test_commands").split()) for node in cluster.nodes
    }


def _on_a_terminal(line: str, typed: str) -> "_Said":
    """Run a command line on a terminal of its own, and type something."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        line, shell=True, cwd=REPOSITORY, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        output = b""
        asked = False
        while True:
            try:
                output += os.read(leader, 1024)
            except OSError:  # the last one who had the terminal open is gone
                break
            if not asked and b"#" in output:
                os.write(leader, typed.encode())
                asked = True
        os.close(leader)
        return _Said(output.decode(errors="replace"), process.wait(timeout=10))


class _Said:
    def __init__(self, output: str, status: int) -> None:
        self.output = output
        self.status = status


def _command_lines() -> Iterator[bytes]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
