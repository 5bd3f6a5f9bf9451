"""Whatever becomes of swarmer, no Vagrant goes on making machines. A program stands in for Vagrant here."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import HEEDING, wait_for

from swarmer.errors import HostError
from swarmer.stacks.vagrant import providers as vagrant_providers
from swarmer.stacks.vagrant.command import FOLDER, VagrantCommand

_PROGRAM = """
import sys
from pathlib import Path
from swarmer.stacks.vagrant.command import VagrantCommand
calls = VagrantCommand(state=Path("state"), log=Path("vagrant.log"), variables={})
calls.up(deadline=600, said=lambda line: print(line, flush=True))
"""

#: No shell: dash loses a signal that comes while it begins a program.
_VAGRANT = """
import os, signal, sys, time
from pathlib import Path
folder = Path(__file__).parent.parent
said = (folder / "said").open("a", buffering=1)
def interrupted(*_):
    said.write("interrupted\\n")
    time.sleep(1)
    said.write("removed\\n")
    sys.exit(1)
signal.signal(signal.SIGINT, interrupted)
(folder / "vagrant").write_text(str(os.getpid()))
print("making", flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program stands in for Vagrant: it counts how often it was interrupted, and then takes its time to end."""
    (tmp_path / "bin").mkdir()
    vagrant = tmp_path / "bin/vagrant"
    vagrant.write_text(f"#!{sys.executable}\n{_VAGRANT}")
    vagrant.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _calls(folder: Path) -> VagrantCommand:
    return VagrantCommand(state=folder / "state", log=folder / "vagrant.log", variables={})


def _lives(folder: Path) -> bool:
    stat = Path("/proc", (folder / "vagrant").read_text().strip(), "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_a_dead_run_began_is_ended_by_who_removes_it(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen([*HEEDING, sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout and run.stdout.readline() == "making\n"
        run.send_signal(number)
        run.wait(timeout=30)
    _calls(folder).end()
    assert not _lives(folder)
    assert (folder / "said").read_text() == "interrupted\nremoved\n"


def test_an_error_on_our_side_ends_it(folder: Path) -> None:
    def said(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="making"):
        _calls(folder).up(deadline=600, said=said)
    assert not _lives(folder)
    assert (folder / "said").read_text() == "interrupted\nremoved\n"


def test_what_takes_too_long_is_ended_and_told(folder: Path) -> None:
    with pytest.raises(HostError, match="did not end within 1 s"):
        _calls(folder).up(deadline=1, said=lambda _: None)
    assert not _lives(folder)


def test_who_does_not_heed_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmer.stacks.vagrant.command._ENDING", 1)
    (folder / "bin/vagrant").write_text(
        f"#!/bin/sh\ntrap '' INT TERM\necho $$ >{folder}/vagrant\nwhile :; do sleep 0.1; done\n"
    )
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.DEVNULL) as run:
        wait_for("vagrant", lambda: (folder / "vagrant").exists() and (folder / "vagrant").read_text(), timeout=10)
        run.kill()
    _calls(folder).end()
    assert not _lives(folder)


def test_what_a_person_told_vagrant_of_other_machines_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VAGRANT_CWD", "VAGRANT_VAGRANTFILE", "VAGRANT_NO_PARALLEL"):
        monkeypatch.setenv(name, "/other")
    (folder / "bin/vagrant").write_text("#!/bin/sh\nenv | grep VAGRANT_\n")
    said: list[str] = []
    _calls(folder).up(deadline=60, said=said.append)
    assert f"VAGRANT_CWD={FOLDER}" in said
    assert not [line for line in said if line.startswith(("VAGRANT_VAGRANTFILE", "VAGRANT_NO_PARALLEL"))]


@pytest.mark.parametrize(
    ("given", "preferred", "installed", "expected"),
    [
        ("virtualbox", "libvirt", ["virsh"], "virtualbox"),
        ("", "libvirt,virtualbox", ["virsh", "VBoxManage"], "libvirt"),
        ("", "vmware, virtualbox", ["virsh", "VBoxManage"], "virtualbox"),
        ("", "virtualbox", ["virsh"], "libvirt"),
        ("", "", ["virsh", "VBoxManage"], "virtualbox"),
        ("", "", ["virsh"], "libvirt"),
        ("", "", [], "libvirt"),
    ],
)
def test_the_provider_is_the_one_that_vagrant_would_choose(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, preferred: str, installed: list[str], expected: str
) -> None:
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", given)
    monkeypatch.setenv("VAGRANT_PREFERRED_PROVIDERS", preferred)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    for name in installed:
        (folder / "bin" / name).touch(0o755)
    assert vagrant_providers.default_name() == expected


def test_where_nothing_runs_there_is_nothing_to_end(folder: Path) -> None:
    _calls(folder).end()
