"""What is collected after a failure: everything that can be, and never at the cost of the run."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_node import FakeCluster

from fixtures import failure_logs
from fixtures.cluster import CLUSTER, FAILED
from fixtures.options import RUN_FOLDER
from swarmer import diagnostics
from swarmer.errors import NodeError, SwarmerError
from swarmer.ssh import CommandTimeout

TEST = "scenarios/test_boot.py::test_it[1]"


@pytest.fixture
def fakes() -> FakeCluster:
    return FakeCluster()


def test_a_file_for_each_command_of_each_node(fakes: FakeCluster, tmp_path: Path) -> None:
    for node in fakes.members:
        node.answers.append(("journalctl", lambda: "a line, and the secret\n"))
    folder = diagnostics.collect(fakes, tmp_path / "logs")
    for node in fakes.members:
        assert (folder / node.name / "journal.log").read_text() == "a line, and the ***\n"
        assert (folder / node.name / "console.log").read_text() == "the console\n"
        assert len(list((folder / node.name).iterdir())) == 7
    assert (folder / "consul.json").read_text() == "{}"


def test_a_command_that_fails_or_takes_too_long_costs_only_its_own_file(fakes: FakeCluster, tmp_path: Path) -> None:
    node = fakes.members[1]
    node.errors += [
        ("journalctl", CommandTimeout("node-2: `journalctl` did not end within 10 s", "the first line, the secret\n")),
        ("cloud-init.log", NodeError("node-2 can't be reached")),
        ("ps -eo", RuntimeError("a bug, with the secret")),
        ("console", OSError("unreadable")),
    ]
    node.answers.append(("ip address", lambda: "lo eth0\n"))
    folder = diagnostics.collect(fakes, tmp_path / "logs") / node.name
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "journal.log": "the first line, the ***\nnode-2: `journalctl` did not end within 10 s\n",
        "cloud-init.log": "NodeError: node-2 can't be reached\n",
        "processes.txt": "RuntimeError: a bug, with the ***\n",
        "console.log": "OSError: unreadable\n",
        "network.txt": "lo eth0\n",
        "cloud-init-output.log": "",
        "units.txt": "",
    }


def test_a_command_that_hangs_does_not_delay_the_others(fakes: FakeCluster, tmp_path: Path) -> None:
    others = threading.Event()
    node = fakes.members[0]

    def hang() -> str:
        assert others.wait(10), "the last command never ran"
        return "at last"

    def last() -> str:
        others.set()
        return ""

    node.answers += [("journalctl", hang), ("ps -eo", last)]
    folder = diagnostics.collect(fakes, tmp_path / "logs")
    assert (folder / node.name / "journal.log").read_text() == "at last"


def test_a_node_that_is_switched_off_leaves_its_console(fakes: FakeCluster, tmp_path: Path) -> None:
    node = fakes.members[2]
    node.on = False
    folder = diagnostics.collect(fakes, tmp_path / "logs")
    assert (folder / node.name / "console.log").read_text() == "the console\n"
    assert (folder / node.name / "journal.log").read_text() == "node-3 is switched off\n"
    assert node.events == ["console"]


def _report(fakes: FakeCluster, runs: Path, *, when: str = "call") -> pytest.TestReport:
    """What the hook makes of the report of a failure."""
    stash = pytest.Stash()
    stash[CLUSTER] = fakes
    stash[FAILED] = set()
    stash[RUN_FOLDER] = runs
    item = cast(pytest.Item, SimpleNamespace(nodeid=TEST, config=SimpleNamespace(stash=stash)))
    failed: Any = when
    report: pytest.TestReport = pytest.TestReport(TEST, ("", 0, ""), {}, "failed", "it failed with the secret", failed)
    hook = failure_logs.pytest_runtest_makereport(item)
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(report)
    return report


def test_the_report_of_a_failure_says_where_the_logs_are(fakes: FakeCluster, tmp_path: Path) -> None:
    report = _report(fakes, tmp_path)
    folder = tmp_path / "scenarios-test_boot/test_it-1/call"
    text = f"node logs: {folder}\nstart with: less {folder}/node-1/journal.log"
    assert report.sections == [("node logs", text)]
    assert report.longreprtext == "it failed with the ***"


@pytest.mark.parametrize("error", [OSError("disk full"), SwarmerError("no credentials"), KeyError("a bug")])
def test_logs_that_can_not_be_collected_are_a_note_in_the_report(
    fakes: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def collect(*_: object) -> Path:
        raise error

    monkeypatch.setattr(diagnostics, "collect", collect)
    report = _report(fakes, tmp_path)
    assert report.sections == [("node logs", f"can't be collected: {type(error).__name__}: {error}")]
    assert report.longreprtext == "it failed with the ***"


def test_secrets_that_can_not_be_read_do_not_end_the_run(fakes: FakeCluster, tmp_path: Path) -> None:
    fakes.locked = SwarmerError("the credentials can't be read")
    report = _report(fakes, tmp_path)
    assert [text for _, text in report.sections] == [
        "can't be collected: SwarmerError: the credentials can't be read",
        "secrets can't be masked: SwarmerError: the credentials can't be read",
    ]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()], "nothing that isn't masked"


def test_no_failure_overwrites_the_logs_of_another(tmp_path: Path) -> None:
    ids = [TEST, TEST.replace("[1]", "[2]"), TEST.replace("[1]", "/1"), TEST.replace("boot", "dns")]
    folders = [failure_logs.new_folder(tmp_path, test, phase) for test in ids for phase in ("call", "teardown", "call")]
    assert len(set(folders)) == len(folders)
    assert all(folder.is_dir() for folder in folders)
    assert folders[2] == tmp_path / "scenarios-test_boot/test_it-1/call-2"
    assert failure_logs.new_folder(tmp_path, f"scenarios/test_boot.py::test_it[{'é/' * 500}]", "call").is_dir()
