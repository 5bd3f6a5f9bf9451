"""The original project's `bin/swarm`, word for word where that still makes sense, and what belongs to it."""

import os
import pty
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.commands import REPOSITORY, RunHere, SucceedHere
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
    said = _on_a_terminal(line, "echo $((6 * 7)); tty; exit 3\n")
    assert "42" in said.output
    assert "/dev/pts/" in said.output
    assert said.status == 3


def test_bin_swarm_run_attaches_and_ends_with_the_containers_status(run_here: RunHere, busybox_image: str) -> None:
    done = run_here(f"./bin/swarm vagrant:dev run --rm {busybox_image} sh -c 'echo out; echo err >&2; exit 5'")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")


@pytest.mark.usefixtures("containers")
def test_bin_swarm_run_takes_the_least_loaded_node(
    cluster: Cluster, succeed_here: SucceedHere, busybox_image: str
) -> None:
    workers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.MANAGER]
    for _ in workers:
        succeed_here(f"./bin/swarm vagrant:dev run -d --label by=bin-swarm {busybox_image} sleep 300")
    assert _placed(cluster) == {node.name: int(node in workers) for node in cluster.nodes}


@pytest.mark.usefixtures("containers")
def test_bin_swarm_run_keeps_the_classic_constraints(
    cluster: Cluster, run_here: RunHere, succeed_here: SucceedHere, busybox_image: str
) -> None:
    chosen = next(node for node in reversed(cluster.nodes) if node.server.swarm is not SwarmRole.MANAGER)
    line = f"./bin/swarm vagrant:dev run --label by=bin-swarm -d -e constraint:node=={{}} {busybox_image} sleep 300"
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
    line = f"./bin/swarm vagrant:dev run --rm -e constraint:node=={drained} {busybox_image} echo runs"
    succeed_here(f"./bin/swarm vagrant:dev node update --availability drain {drained}")
    try:
        refused = run_here(line)
    finally:
        succeed_here(f"./bin/swarm vagrant:dev node update --availability active {drained}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"error: no node of {cluster.name} can run this" in refused.stderr
    assert succeed_here(line) == "runs\n"


@pytest.mark.usefixtures("containers")
def test_bin_swarm_ps_shows_all_nodes(cluster: Cluster, succeed_here: SucceedHere, busybox_image: str) -> None:
    for node in cluster.nodes:
        node.succeed(f"docker run -d --name on-{node.name} --label by=bin-swarm {busybox_image} sleep 300")
    header, *rows = succeed_here("./bin/swarm vagrant:dev ps").splitlines()
    assert header.split()[:3] == ["NODE", "CONTAINER", "ID"]
    places = {row.split()[-1]: row.split()[0] for row in rows}
    assert places == places | {f"on-{node.name}": node.name for node in cluster.nodes}
    assert len(succeed_here("./bin/swarm vagrant:dev ps -q --filter label=by=bin-swarm").split()) == len(cluster.nodes)


def test_bin_swarm_images_shows_all_nodes(cluster: Cluster, succeed_here: SucceedHere, busybox_image: str) -> None:
    name, tag = busybox_image.split(":")
    header, *rows = succeed_here("./bin/swarm vagrant:dev images").splitlines()
    assert header.split()[:3] == ["NODE", "REPOSITORY", "TAG"]
    having = {row.split()[0] for row in rows if row.split()[1:3] == [name, tag]}
    assert having == {node.name for node in cluster.nodes}


def test_bin_swarm_pull_asks_every_node(cluster: Cluster, run_here: RunHere) -> None:
    done = run_here("./bin/swarm vagrant:dev pull nowhere.invalid/image")
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
    told = succeed_here(f"./bin/swarm vagrant:dev pull {image}")
    for node in cluster.nodes:
        assert re.search(rf"^{node.name} +\| Status: Downloaded newer image for {image}", told, re.MULTILINE), told
        node.succeed(f"docker image inspect {image} && docker rmi {image}")


def test_everything_else_is_passed_on_to_a_manager(
    cluster: Cluster, succeed_here: SucceedHere, run_here: RunHere
) -> None:
    listed = succeed_here("./bin/swarm vagrant:dev node ls --format '{{.Hostname}}'").split()
    assert sorted(listed) == sorted(node.name for node in cluster.nodes)
    wrong = run_here("./bin/swarm vagrant:dev nonsense")
    assert wrong.returncode != 0
    assert "nonsense" in wrong.stderr


def test_one_node_can_be_asked(cluster: Cluster, succeed_here: SucceedHere) -> None:
    for node in cluster.nodes:
        told = succeed_here(f".venv/bin/swarmer docker --node {node.name} vagrant:dev info --format '{{{{.Name}}}}'")
        assert told.strip() == node.name


def test_with_a_manager_down_another_is_asked(
    cluster: Cluster, faults: Faults, succeed_here: SucceedHere, run_here: RunHere, busybox_image: str
) -> None:
    names = {node.name for node in cluster.nodes}
    managers = [node for node in cluster.nodes if node.server.swarm is not SwarmRole.AGENT]
    if len(managers) < 3:
        pytest.skip("needs three swarm managers")
    with faults.power_off(managers[0]):
        asked = succeed_here("./bin/swarm vagrant:dev info --format '{{.Name}}'").strip()
        assert asked in {node.name for node in managers[1:]}
        assert succeed_here(f"./bin/swarm vagrant:dev run --rm {busybox_image} echo alive") == "alive\n"
        shown = run_here("./bin/swarm vagrant:dev images")
        assert shown.returncode == 0
        assert {node.name for node in cluster.nodes if node.name in shown.stdout} == names - {managers[0].name}
        assert shown.stderr == f"{managers[0].name} does not answer; what it has is not shown\n"
        assert f"tcp://{managers[0].ip}:" not in succeed_here(".venv/bin/swarmer env vagrant:dev")


def test_without_a_docker_client_on_the_host_the_nodes_own_is_used(
    run_here: RunHere, busybox_image: str, tmp_path: Path
) -> None:
    for tool in {file.name for folder in os.get_exec_path() for file in Path(folder).glob("*")} - {"docker"}:
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    line = f"./bin/swarm vagrant:dev run --rm {busybox_image} sh -c 'echo \"a  b\"; exit 6'"
    done = run_here(line, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (6, "a  b\n"), done.stderr
    assert "NODE" in run_here("./bin/swarm vagrant:dev ps", PATH=str(tmp_path)).stdout


@needs_docker
def test_env_is_all_that_the_plain_docker_client_needs(cluster: Cluster, succeed_here: SucceedHere) -> None:
    listed = succeed_here('eval "$(.venv/bin/swarmer env vagrant:dev)" && docker node ls --format "{{.Hostname}}"')
    assert sorted(listed.split()) == sorted(node.name for node in cluster.nodes)


@needs_docker
def test_a_context_is_all_that_the_plain_docker_client_needs(
    cluster: Cluster, succeed_here: SucceedHere, tmp_path: Path
) -> None:
    name = f"swarmer-{cluster.name.replace(':', '-')}"
    for _ in range(2):  # made, and brought up to date
        succeed_here(".venv/bin/swarmer context vagrant:dev", DOCKER_CONFIG=str(tmp_path))
    listed = succeed_here(f"docker --context {name} node ls --format '{{{{.Hostname}}}}'", DOCKER_CONFIG=str(tmp_path))
    assert sorted(listed.split()) == sorted(node.name for node in cluster.nodes)


# -- what the promises are made of -------------------------------------------------------------------------


def _placed(cluster: Cluster) -> dict[str, int]:
    """How many containers of these scenarios run on each node."""
    return {node.name: len(node.succeed("docker ps -q --filter label=by=bin-swarm").split()) for node in cluster.nodes}


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
