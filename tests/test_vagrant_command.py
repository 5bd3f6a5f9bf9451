"""However swarmer ends, no Vagrant process continues to create machines. A fake program replaces Vagrant here."""

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
calls.up(deadline=600, on_line=lambda line: print(line, flush=True))
"""

#: Not a shell script: dash loses a signal that arrives while it starts a program.
_VAGRANT = """
import os, signal, sys, time
from pathlib import Path
folder = Path(__file__).parent.parent
output = (folder / "output").open("a", buffering=1)
def interrupted(*_):
    output.write("interrupted\\n")
    time.sleep(1)
    output.write("removed\\n")
    sys.exit(1)
signal.signal(signal.SIGINT, interrupted)
(folder / "vagrant").write_text(str(os.getpid()))
print("making", flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fake Vagrant that records each interrupt, and then takes a second to end."""
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
def test_removing_a_dead_run_ends_its_vagrant(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen([*HEEDING, sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout and run.stdout.readline() == "making\n"
        run.send_signal(number)
        run.wait(timeout=30)
    _calls(folder).end()
    assert not _lives(folder)
    assert (folder / "output").read_text() == "interrupted\nremoved\n"


def test_an_error_in_swarmer_ends_vagrant(folder: Path) -> None:
    def on_line(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="making"):
        _calls(folder).up(deadline=600, on_line=on_line)
    assert not _lives(folder)
    assert (folder / "output").read_text() == "interrupted\nremoved\n"


def test_a_command_that_exceeds_its_deadline_is_ended_and_reported(folder: Path) -> None:
    with pytest.raises(HostError, match="did not end within 1 s"):
        _calls(folder).up(deadline=1, on_line=lambda _: None)
    assert not _lives(folder)


def test_a_process_that_ignores_sigint_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmer.stacks.vagrant.command._CLEANUP_TIMEOUT", 1)
    (folder / "bin/vagrant").write_text(
        f"#!/bin/sh\ntrap '' INT TERM\necho $$ >{folder}/vagrant\nwhile :; do sleep 0.1; done\n"
    )
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.DEVNULL) as run:
        wait_for("vagrant", lambda: (folder / "vagrant").exists() and (folder / "vagrant").read_text(), timeout=10)
        run.kill()
    _calls(folder).end()
    assert not _lives(folder)


def test_variables_that_the_user_set_for_other_machines_are_ignored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VAGRANT_CWD", "VAGRANT_VAGRANTFILE", "VAGRANT_NO_PARALLEL"):
        monkeypatch.setenv(name, "/other")
    (folder / "bin/vagrant").write_text("#!/bin/sh\nenv | grep VAGRANT_\n")
    output: list[str] = []
    _calls(folder).up(deadline=60, on_line=output.append)
    assert f"VAGRANT_CWD={FOLDER}" in output
    assert not [line for line in output if line.startswith(("VAGRANT_VAGRANTFILE", "VAGRANT_NO_PARALLEL"))]


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


def test_end_does_nothing_if_no_vagrant_runs(folder: Path) -> None:
    _calls(folder).end()
