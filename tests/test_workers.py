"""Runs of several clusters side by side: how many there are, which module comes when, and how they end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import HEEDING, REPOSITORY, servers_yml, wait_for

from swarmer.spec.file import load
from swarmer.stacks.base import Stack
from swarmer.stacks.nspawn.stack import NspawnStack
from swarmer.stacks.vagrant.stack import VagrantStack

pytest_plugins = ("pytester",)

#: In the place of a cluster: a file that is there as long as one would be.
_CONFTEST = """
import os, time
from pathlib import Path
import pytest
from fixtures import workers

HERE = Path(__file__).parent
workers._SCENARIOS = HERE / "scenarios"
workers.DURATIONS = HERE / "durations.json"
pytest_plugins = ("fixtures.workers", "fixtures.options", "fixtures.signals", "fixtures.deadlines")

@pytest.fixture(scope="session", autouse=True)
def cluster(request):
    number = workers.number(request)
    file = HERE / f"cluster-{number}"
    part = HERE / f"part-{number}"
    part.write_text(str(os.getpid()))
    try:
        part.rename(file)
        if worker := request.config.stash.get(workers.WORKER, None):
            worker.print(f"booting {number}")
        yield
    finally:
        time.sleep(float(os.environ.get("TEARDOWN", 0)))
        file.rename(HERE / f"gone-{number}")
"""

_NOTED = """
from pathlib import Path
def test_it():
    with Path("order").open("a") as file:
        file.write(__name__ + "\\n")
"""

_HANGING = """
from swarmer import interrupts
def test_it():
    interrupts.sleep(600)
"""

_KILLED = """
import os, signal
def test_that_kills():
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Folder:
    """A folder with scenarios, and the files that stand for their clusters."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "scenarios").mkdir()
        (path / "conftest.py").write_text(_CONFTEST)
        (path / "servers.yml").write_text(servers_yml("10.96.1", count=3))
        (path / "durations.json").write_text("{}")

    def module(self, name: str, source: str) -> None:
        (self.path / f"scenarios/test_{name}.py").write_text(source)

    def start(self, *options: str, **variables: str) -> subprocess.Popen[str]:
        """Run the scenarios."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.Popen(
            [*HEEDING, sys.executable, "-m", "pytest", "-p", "xdist", "-p", "no:cacheprovider", *options],
            cwd=self.path,
            # Hypothesis alone takes a second in each process.
            env={**environment, "PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, **variables: str) -> str:
        """What a run prints that has to succeed."""
        run = self.start(*options, **variables)
        output = end(run)
        assert run.returncode == 0, output
        return output

    def clusters(self) -> list[Path]:
        return sorted(self.path.glob("cluster-*"))

    def gone(self) -> list[str]:
        return sorted(file.name for file in self.path.glob("gone-*"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def two_hanging(folder: Folder) -> Folder:
    for name in ("one", "two"):
        folder.module(name, _HANGING)
    return folder


@pytest.mark.parametrize(
    ("stack", "servers", "processors", "free", "expected"),
    [
        (NspawnStack, 3, 2, 16000, 3),
        (NspawnStack, 5, 2, 16000, 1),
        (NspawnStack, 1, 2, 16000, 3),
        (NspawnStack, 3, 16, 100000, 24),
        (NspawnStack, 3, 2, 4000, 2),
        (NspawnStack, 3, 1, 500, 1),
        (VagrantStack, 3, 64, 100000, 1),
    ],
)
def test_a_stack_gets_as_many_clusters_as_this_machine_has_room_for(
    stack: type[Stack],
    servers: int,
    processors: int,
    free: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "servers.yml"
    file.write_text(servers_yml("10.96.1"))
    read_text = Path.read_text
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *words, **named: (
            f"MemTotal: 1 kB\nMemAvailable:   {free * 1024} kB\n"
            if str(self) == "/proc/meminfo"
            else read_text(self, *words, **named)
        ),
    )
    number, reason = stack.side_by_side(load(file, size=servers))
    assert (number, bool(reason)) == (expected, True)


def test_several_modules_are_distributed_the_longest_first(folder: Folder) -> None:
    for name in ("a", "b", "c", "unmeasured"):
        folder.module(name, _NOTED)
    seconds = {"scenarios/test_a.py": 1, "scenarios/test_b.py": 3, "scenarios/test_c.py": 2}
    (folder.path / "durations.json").write_text(json.dumps(seconds))
    output = folder.run("scenarios", "--maxprocesses=1")
    assert "clusters: " in output
    assert "side by side" in output
    assert "gw0: booting 0" in output
    assert "gw0: scenarios/test_unmeasured.py" in output
    assert (folder.path / "order").read_text().split() == ["test_unmeasured", "test_b", "test_c", "test_a"]


@pytest.mark.parametrize("option", ["-n0", "-s", "--pdb", "--trace", "--keep-cluster"])
def test_what_goes_with_one_cluster_only_gets_one(folder: Folder, option: str) -> None:
    for name in ("a", "b"):
        folder.module(name, "def test_it(): pass")
    with folder.start("scenarios", option) as run:
        output = end(run, "c\nc\n")
    assert folder.gone() == ["gone-None"], output
    assert option == "-n0" or f"clusters: one, for {option}" in output


@pytest.mark.parametrize(
    "words", [["scenarios/test_a.py"], ["scenarios", "-k", "test_a"], ["scenarios/test_a.py::test_it"]]
)
def test_the_cluster_of_a_single_module_is_called_as_in_the_file(folder: Folder, words: list[str]) -> None:
    for name in ("a", "b"):
        folder.module(name, "def test_it(): pass\ndef test_more(): pass")
    folder.run(*words)
    assert folder.gone() == ["gone-None"]


def test_with_a_number_of_workers_each_has_a_cluster_called_after_it(folder: Folder) -> None:
    folder.module("a", "def test_it(): pass")
    folder.run("scenarios/test_a.py", "-n2", "--dist=each")
    assert folder.gone() == ["gone-0", "gone-1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("receiver", ["controller", "all"])
def test_interrupted_workers_take_their_clusters_down(
    two_hanging: Folder, number: signal.Signals, receiver: str
) -> None:
    """Also when that takes longer than pytest-xdist gives them, ten seconds; Ctrl-C reaches all processes."""
    with two_hanging.start("scenarios", TEARDOWN="12") as run:
        wait_for("two clusters", lambda: len(two_hanging.clusters()) == 2)
        (os.kill if receiver == "controller" else os.killpg)(run.pid, number)
        output = end(run)
    assert run.returncode == 2, output
    assert len(two_hanging.gone()) == 2, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_worker_ends_the_run(two_hanging: Folder, number: signal.Signals) -> None:
    with two_hanging.start("scenarios") as run:
        wait_for("two clusters", lambda: len(two_hanging.clusters()) == 2)
        os.kill(int(two_hanging.clusters()[0].read_text()), number)
        output = end(run)
    assert f": {number.name} !" in output
    assert len(two_hanging.gone()) == 2, output


def test_workers_whose_controller_was_killed_take_their_clusters_down(two_hanging: Folder) -> None:
    with two_hanging.start("scenarios") as run:
        wait_for("two clusters", lambda: len(two_hanging.clusters()) == 2)
        workers = [int(file.read_text()) for file in two_hanging.clusters()]
        run.kill()
        end(run)
        wait_for("end of the workers", lambda: not any(_lives(worker) for worker in workers))
    assert len(two_hanging.gone()) == 2


def test_a_worker_that_was_killed_is_replaced_and_its_last_scenario_is_not_run_again(folder: Folder) -> None:
    folder.module("one", "def test_it(): pass\n" + _KILLED)
    folder.module("two", "def test_it(): pass")
    folder.module("three", "def test_it(): pass")
    output = end(folder.start("scenarios", "-n2", "--dist=loadscope"))
    assert "replacing crashed worker" in output
    assert "1 failed, 3 passed" in output


def test_what_leaves_no_cluster_ends_the_run_with_its_sentence(two_hanging: Folder) -> None:
    file = two_hanging.path / "conftest.py"
    exits = 'if number: pytest.exit("no cluster: the network is in use", returncode=1)'
    file.write_text(file.read_text().replace("        yield\n", f"        {exits}\n        yield\n"))
    with two_hanging.start("scenarios") as run:
        output = end(run)
    assert run.returncode == 1
    assert ": no cluster: the network is in use" in output
    assert len(two_hanging.gone()) == 2, output


def end(run: subprocess.Popen[str], typed: str | None = None) -> str:
    """What a run prints until its end."""
    try:
        output, _ = run.communicate(typed, timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        raise
    return output


def _lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
