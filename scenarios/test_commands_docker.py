"""The original project's `bin/swarm`, word for word where that still makes sense, and what belongs to it."""

import os
import pty
import re
import select
import shutil
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from fixtures.commands import RunHere, SucceedHere, process_group
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.faults import Faults
from swarmer.spec import SwarmRole

needs_docker = pytest.mark.skipif(not shutil.which("docker"), reason="needs a docker client on this host")


@pytest.fixture
def containers(cluster: Cluster) -> Iterator[None]:
    """Whatever containers a scenario runs, they are gone after it."""
    yield
    for node in cluster.nodes:
        node.succeed("docker ps -aq --filter label=by=bin-swarm | xargs -r docker rm -f")


def test_bin_swarm_run_it_is_a_shell_in_a_container(cluster: Cluster, busybox_image: str) -> None:
    line = f"./bin/swarm {cluster.name} run --rm -it {busybox_image} /bin/sh"
    said = _on_a_terminal(cluster, line, "echo $((6 * 7)); tty; exit 3\n")
    assert "42" in said.output
    assert "/dev/pts/" in said.output
    assert said.status == 3


def test_bin_swarm_run_attaches_and_ends_with_the_containers_status(run_here: RunHere, busybox_image: str) -> None:
    done = run_here(f"./bin/swarm $CLUSTER run --rm {busybox_image} sh -c 'echo out; echo err >&2; exit 5'")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")


@pytest.mark.usefixtures("containers")
def test_bin_swarm_run_takes_the_least_loaded_node(
    cluster: Cluster, succeed_here: SucceedHere, busybox_image: str
) -> None:
    workers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.MANAGER]
    for _ in workers:
        succeed_here(f"./bin/swarm $CLUSTER run -d --label by=bin-swarm {busybox_image} sleep 300")
    assert _placed(cluster) == {node.name: int(node in workers) for node in cluster.nodes}


@pytest.mark.usefixtures("containers")
def test_bin_swarm_run_keeps_the_classic_constraints(
    cluster: Cluster, run_here: RunHere, succeed_here: SucceedHere, busybox_image: str
) -> None:
    chosen = next(node for node in reversed(cluster.nodes) if node.server.swarm is not SwarmRole.MANAGER)
    line = f"./bin/swarm $CLUSTER run --label by=bin-swarm -d -e constraint:node=={{}} {busybox_image} sleep 300"
    for _ in range(2):
        succeed_here(line.format(chosen.name))
    assert _placed(cluster)[chosen.name] == 2
    refused = run_here(line.format("nobody"))
    assert refused.returncode == 1
    assert f"error: no node of {cluster.name} can run this" in refused.stderr


def test_bin_swarm_run_takes_no_drained_node(
    cluster: Cluster, run_here: RunHere, succeed_here: SucceedHere, busybox_image: str
) -> None:
    drained = cluster.spec.workers[-1].name
    line = f"./bin/swarm $CLUSTER run --rm -e constraint:node=={drained} {busybox_image} echo runs"
    succeed_here(f"./bin/swarm $CLUSTER node update --availability drain {drained}")
    try:
        refused = run_here(line)
    finally:
        succeed_here(f"./bin/swarm $CLUSTER node update --availability active {drained}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"error: no node of {cluster.name} can run this" in refused.stderr
    assert succeed_here(line) == "runs\n"


@pytest.mark.smoke
@pytest.mark.usefixtures("containers")
def test_bin_swarm_ps_shows_all_nodes(cluster: Cluster, succeed_here: SucceedHere, busybox_image: str) -> None:
    for node in cluster.nodes:
        node.succeed(f"docker run -d --name on-{node.name} --label by=bin-swarm {busybox_image} sleep 300")
    header, *rows = succeed_here("./bin/swarm $CLUSTER ps").splitlines()
    assert header.split()[:3] == ["NODE", "CONTAINER", "ID"]
    places = {row.split()[-1]: row.split()[0] for row in rows}
    assert places == places | {f"on-{node.name}": node.name for node in cluster.nodes}
    assert len(succeed_here("./bin/swarm $CLUSTER ps -q --filter label=by=bin-swarm").split()) == len(cluster.nodes)


def test_bin_swarm_images_shows_all_nodes(cluster: Cluster, succeed_here: SucceedHere, busybox_image: str) -> None:
    name, tag = busybox_image.split(":")
    header, *rows = succeed_here("./bin/swarm $CLUSTER images").splitlines()
    assert header.split()[:3] == ["NODE", "REPOSITORY", "TAG"]
    having = {row.split()[0] for row in rows if row.split()[1:3] == [name, tag]}
    assert having == {node.name for node in cluster.nodes}


def test_bin_swarm_pull_asks_every_node(cluster: Cluster, run_here: RunHere) -> None:
    done = run_here("./bin/swarm $CLUSTER pull nowhere.invalid/image")
    assert done.returncode == 1
    for node in cluster.nodes:
        assert re.search(rf"^{node.name} +\| .*nowhere\.invalid", done.stderr, re.MULTILINE), done.stderr
        assert node.name in done.stderr.splitlines()[-1]


def test_bin_swarm_pull_gets_an_image_of_the_registry_on_every_node(
    cluster: Cluster,
    succeed_here: SucceedHere,
    busybox_image: str,
    registry_host: str,
    logged_in: Callable[[Node], None],
) -> None:
    image = f"{registry_host}/commands/pulled"
    logged_in(cluster.nodes[0])
    cluster.nodes[0].succeed(
        f"docker tag {busybox_image} {image} && docker push {image} && docker rmi {image}; "
        f"docker logout {registry_host}"
    )
    told = succeed_here(f"./bin/swarm $CLUSTER pull {image}")
    for node in cluster.nodes:
        assert re.search(rf"^{node.name} +\| Status: Downloaded newer image for {image}", told, re.MULTILINE), told
        node.succeed(f"docker image inspect {image} && docker rmi {image}")


def test_everything_else_is_passed_on_to_a_manager(
    cluster: Cluster, succeed_here: SucceedHere, run_here: RunHere
) -> None:
    listed = succeed_here("./bin/swarm $CLUSTER node ls --format '{{.Hostname}}'").split()
    assert sorted(listed) == sorted(node.name for node in cluster.nodes)
    wrong = run_here("./bin/swarm $CLUSTER nonsense")
    assert wrong.returncode != 0
    assert "nonsense" in wrong.stderr


def test_one_node_can_be_asked(cluster: Cluster, succeed_here: SucceedHere) -> None:
    for node in cluster.nodes:
        told = succeed_here(f".venv/bin/swarmer docker --node {node.name} $CLUSTER info --format '{{{{.Name}}}}'")
        assert told.strip() == node.name


def test_with_a_manager_down_another_is_asked(
    cluster: Cluster, faults: Faults, succeed_here: SucceedHere, run_here: RunHere, busybox_image: str
) -> None:
    names = {node.name for node in cluster.nodes}
    managers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.AGENT]
    if len(managers) < 3:
        pytest.skip("needs three swarm managers")
    with faults.power_off(managers[0]):
        asked = succeed_here("./bin/swarm $CLUSTER info --format '{{.Name}}'").strip()
        assert asked in {node.name for node in managers[1:]}
        assert succeed_here(f"./bin/swarm $CLUSTER run --rm {busybox_image} echo alive") == "alive\n"
        shown = run_here("./bin/swarm $CLUSTER images")
        assert shown.returncode == 0
        # The first column alone: images that other scenarios left may be named after a node.
        shown_nodes = {line.split()[0] for line in shown.stdout.splitlines()[1:]}
        assert shown_nodes == names - {managers[0].name}, shown.stdout
        assert shown.stderr == f"{managers[0].name} did not answer; its entries are missing\n"
        assert f"tcp://{managers[0].ip}:" not in succeed_here(".venv/bin/swarmer env $CLUSTER")


def test_without_a_docker_client_on_the_host_the_nodes_own_is_used(
    run_here: RunHere, busybox_image: str, tmp_path: Path
) -> None:
    for tool in {file.name for folder in os.get_exec_path() for file in Path(folder).glob("*")} - {"docker"}:
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    line = f"./bin/swarm $CLUSTER run --rm {busybox_image} sh -c 'echo \"a  b\"; exit 6'"
    done = run_here(line, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (6, "a  b\n"), done.stderr
    assert "NODE" in run_here("./bin/swarm $CLUSTER ps", PATH=str(tmp_path)).stdout


@needs_docker
def test_env_is_all_that_the_plain_docker_client_needs(cluster: Cluster, succeed_here: SucceedHere) -> None:
    listed = succeed_here('eval "$(.venv/bin/swarmer env $CLUSTER)" && docker node ls --format "{{.Hostname}}"')
    assert sorted(listed.split()) == sorted(node.name for node in cluster.nodes)


@needs_docker
def test_a_context_is_all_that_the_plain_docker_client_needs(
    cluster: Cluster, succeed_here: SucceedHere, tmp_path: Path
) -> None:
    name = f"swarmer-{cluster.name.replace(':', '-')}"
    for _ in range(2):  # made, and brought up to date
        succeed_here(".venv/bin/swarmer context $CLUSTER", DOCKER_CONFIG=str(tmp_path))
    listed = succeed_here(f"docker --context {name} node ls --format '{{{{.Hostname}}}}'", DOCKER_CONFIG=str(tmp_path))
    assert sorted(listed.split()) == sorted(node.name for node in cluster.nodes)


@needs_docker
def test_a_proxy_of_this_host_is_not_asked_for_nodes(
    cluster: Cluster, succeed_here: SucceedHere, tmp_path: Path
) -> None:
    """Nothing listens on its port."""
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    behind = {**proxies, "NO_PROXY": "example.org", "no_proxy": "", "DOCKER_CONFIG": str(tmp_path)}
    names = sorted(node.name for node in cluster.nodes)
    context = f"swarmer-{cluster.name.replace(':', '-')}"
    listing = "node ls --format '{{.Hostname}}'"
    assert sorted(succeed_here(f".venv/bin/swarmer docker $CLUSTER {listing}", **behind).split()) == names
    env = 'eval "$(.venv/bin/swarmer env $CLUSTER)"'
    assert sorted(succeed_here(f"{env} && docker {listing}", **behind).split()) == names
    assert succeed_here(f"{env} && {env} && echo $NO_PROXY", **behind).startswith("example.org,")
    made = succeed_here(".venv/bin/swarmer context $CLUSTER", **behind)
    (export,) = (line for line in made.splitlines() if line.startswith("  export NO_PROXY="))
    assert sorted(succeed_here(f"{export} && docker --context {context} {listing}", **behind).split()) == names
    assert succeed_here("bin/consul $CLUSTER members", **behind).count("alive") == len(names)
    assert names[0] in succeed_here("bin/consul $CLUSTER GET /v1/catalog/nodes", **behind)


# -- what the promises are made of -------------------------------------------------------------------------


def _placed(cluster: Cluster) -> dict[str, int]:
    """How many containers of these scenarios run on each node."""
    return {node.name: len(node.succeed("docker ps -q --filter label=by=bin-swarm").split()) for node in cluster.nodes}


def _on_a_terminal(cluster: Cluster, line: str, typed: str) -> "_Said":
    """Run a command line on a terminal of its own, and type something."""
    leader, follower = pty.openpty()
    with process_group(line, shell=True, stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        with os.fdopen(leader, "r+b", buffering=0) as terminal:
            output = b""
            asked = False
            while piece := _read(cluster, terminal, output):
                output += piece
                if not asked and b"#" in output:
                    terminal.write(typed.encode())
                    asked = True
            return _Said(output.decode(errors="replace"), process.wait(timeout=cluster.scaled(10)))


def _read(cluster: Cluster, terminal: FileIO, before: bytes) -> bytes:
    """The next output on a terminal; empty when the last process that had it open has ended."""
    ready, _, _ = select.select([terminal], [], [], cluster.scaled(30))
    assert ready, (
        f"nothing more on the terminal for {cluster.scaled(30):.0f} s, after: {before.decode(errors='replace')}"
    )
    try:
        return terminal.read(1024) or b""
    except OSError:  # as Linux says that nobody has the other side open
        return b""


class _Said:
    def __init__(self, output: str, status: int) -> None:
        self.output = output
        self.status = status
