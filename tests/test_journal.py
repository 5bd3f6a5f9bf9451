"""The journals of nodes are copied while they are written, without secrets, and over all boots.

Instead of ssh, a program prints a journal and goes on running, as `journalctl --follow` does.
"""

import os
import time
from pathlib import Path

import pytest
from fake_node import FakeCluster

from swarmer.journal import JournalStreams

_SSH = """#!/bin/sh
cat "$FOLDER/printed"
echo $$ >> "$FOLDER/processes"
exec sleep 60
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    (tmp_path / "ssh").write_text(_SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    fakes = FakeCluster()
    fakes.nodes = fakes.nodes[:1]
    fakes.manage()
    return fakes


def _until(file: Path, text: str, *, lines: int = 1) -> str:
    """The content of a file, as soon as it has so many lines, and a text."""
    deadline = time.monotonic() + 10
    while not file.exists() or text not in file.read_text() or file.read_text().count("\n") < lines:
        assert time.monotonic() < deadline, file.read_text() if file.exists() else "nothing"
        time.sleep(0.02)
    return file.read_text()


def test_a_journal_is_copied_at_once_over_all_boots_and_until_the_end(fakes: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "printed").write_text("first boot\n")
    with JournalStreams(fakes, tmp_path / "journal") as streams:
        file = streams.file("node-1")
        _until(file, "first boot\n")
        (tmp_path / "printed").write_text("second boot\n")
        fakes.announce(fakes.nodes[0])
        assert _until(file, "second boot\n") == "first boot\nsecond boot\n"
        _until(tmp_path / "processes", "\n", lines=2)
        assert list(streams.files()) == [file]
    assert fakes.listeners == []
    processes = (tmp_path / "processes").read_text().split()
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]


def test_secrets_are_masked_also_those_of_several_lines(fakes: FakeCluster, tmp_path: Path) -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIOlp\n-----END EC PRIVATE KEY-----\n"
    (tmp_path / "printed").write_text(f"before\n{key}the secret token\nthe last line\n")
    with JournalStreams(fakes, tmp_path / "journal") as streams:
        assert _until(streams.file("node-1"), "last line\n") == "before\n***\nthe *** token\nthe last line\n"
