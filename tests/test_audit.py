"""The audit misses nothing in the journals, reports nothing twice, and does not take silence for health.

The nodes' journals are files; a program named `journalctl` answers from them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_node import FakeCluster, FakeNode

from swarmer.audit import Audit
from swarmer.errors import NodeError
from swarmer.ssh import Result

FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
RESTART = "5eb03494b6584870a536b337290809b3"

# Of journalctl, the options that the audit needs. After its n-th call, the entries of the file `arriving-n` arrive.
_JOURNALCTL = f"""#!{sys.executable} -IS
import json, pathlib, re, sys
folder = pathlib.Path.cwd()
calls = folder / "calls"
calls.write_text(str(call := int(calls.read_text()) + 1 if calls.exists() else 1))
options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
identifiers = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("MESSAGE_ID=")]
journal = folder / "journal"
entries = [json.loads(line) for line in journal.read_text().splitlines()]
for number, entry in enumerate(entries):
    entry["__CURSOR"] = f"s=1;i={{number}}"
if "after-cursor" in options:
    entries = entries[int(options["after-cursor"].rpartition("=")[2]) + 1 :]
if identifiers:
    entries = [entry for entry in entries if entry.get("MESSAGE_ID") in identifiers]
if "grep" in options:
    entries = [entry for entry in entries if re.search(options["grep"], str(entry["MESSAGE"]))]
if "lines" in options:
    entries = entries[-int(options["lines"]) :]
print("".join(json.dumps(entry) + "\\n" for entry in entries), end="")
arriving = folder / f"arriving-{{call}}"
if arriving.exists():
    journal.write_text(journal.read_text() + arriving.read_text())
sys.exit(0 if entries else 1)
"""


class JournalNode(FakeNode):
    """A node with nothing but a journal."""

    folder: Path

    def begin(self, folder: Path) -> None:
        """Make the journal, with an entry of the past."""
        self.folder = folder
        folder.mkdir()
        self.write("the boot")

    def write(self, message: str | list[int], *, file: str = "journal", unit: str = "", identifier: str = "") -> None:
        """Append an entry to the journal, or to a file of entries that will arrive."""
        with (self.folder / file).open("a") as journal:
            journal.write(json.dumps({"MESSAGE": message, "UNIT": unit, "MESSAGE_ID": identifier}) + "\n")

    def execute(self, command: str, *, timeout: float = 60, input: str | None = None) -> Result:  # noqa: ARG002
        self.event(command)
        environment = {**os.environ, "PATH": f"{self.folder.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=30
        )
        return Result(command, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def fakes() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def node(fakes: FakeCluster, tmp_path: Path) -> JournalNode:
    program = tmp_path / "journalctl"
    program.write_text(_JOURNALCTL)
    program.chmod(0o755)
    node = JournalNode(fakes, "node-1", "192.0.2.1")
    fakes.nodes = [node]
    node.begin(tmp_path / "node-1")
    return node


@pytest.fixture
def audit(fakes: FakeCluster, node: JournalNode) -> Audit:
    node.write("old.service: Failed", unit="old.service", identifier=FAILED)
    audit = Audit.from_now_on(fakes)
    (node.folder / "calls").unlink()
    return audit


def _told(audit: Audit) -> list[str]:
    return [str(complaint) for complaint in audit.complaints()]


def test_what_happened_before_is_ignored(audit: Audit) -> None:
    assert _told(audit) == []


def test_failed_units_and_panics_are_complaints_once(audit: Audit, node: JournalNode) -> None:
    node.write("all is well")
    node.write("consul.service: Failed with result 'signal'.", unit="consul.service", identifier=FAILED)
    node.write("panic: runtime error", unit="docker.service")
    assert _told(audit) == [
        "node-1: consul.service: consul.service: Failed with result 'signal'.",
        "node-1: docker.service: panic: runtime error",
    ]
    assert _told(audit) == []


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_unit_that_fails_while_the_journal_is_read_is_reported_once(
    audit: Audit, node: JournalNode, call: int
) -> None:
    node.write("failed meanwhile", file=f"arriving-{call}", unit="consul.service", identifier=FAILED)
    node.write("panic: meanwhile", file=f"arriving-{call}", unit="docker.service")
    complaints = sorted(_told(audit) + _told(audit) + _told(audit))
    assert complaints == ["node-1: consul.service: failed meanwhile", "node-1: docker.service: panic: meanwhile"]


def test_a_node_that_does_not_answer_is_a_complaint(audit: Audit, node: JournalNode) -> None:
    node.write("failed meanwhile", unit="consul.service", identifier=FAILED)
    node.errors.append(("journalctl", NodeError("node-1 can't be reached")))
    assert _told(audit) == ["node-1: its journal can't be read: node-1 can't be reached"]
    assert _told(audit) == ["node-1: consul.service: failed meanwhile"], "nothing is lost"


def test_a_node_without_a_journal_is_a_complaint(audit: Audit, node: JournalNode) -> None:
    (node.folder.parent / "journalctl").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    assert _told(audit) == ["node-1: its journal can't be read: broken"]


def test_a_node_that_is_switched_off_is_not_asked(audit: Audit, node: JournalNode) -> None:
    node.on = False
    assert _told(audit) == []


def test_a_unit_that_ends_well_again_and_again_is_a_complaint(audit: Audit, node: JournalNode) -> None:
    node.write("Scheduled restart job, counter is at 1.", unit="once.service", identifier=RESTART)
    for number in (1, 2, 3):
        node.write(f"Scheduled restart job, counter is at {number}.", unit="loop.service", identifier=RESTART)
        node.write(f"Scheduled restart job, counter is at {number}.", unit="failing.service", identifier=RESTART)
    node.write("Failed with result 'exit-code'.", unit="failing.service", identifier=FAILED)
    assert _told(audit) == [
        "node-1: failing.service: Failed with result 'exit-code'.",
        "node-1: loop.service: restarted 3 times: Scheduled restart job, counter is at 3.",
    ]


def test_new_nodes_are_read_from_the_beginning(audit: Audit) -> None:
    audit.forget()
    assert _told(audit) == ["node-1: old.service: old.service: Failed"]


def test_a_message_that_is_not_utf_8_can_be_read(audit: Audit, node: JournalNode) -> None:
    node.write(list(b"Failed: \xff"), unit="consul.service", identifier=FAILED)
    assert _told(audit) == ["node-1: consul.service: Failed: �"]
