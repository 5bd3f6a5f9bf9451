"""The vagrant stack on one real virtual machine: Vagrant creates it, and nothing is left of it, however a run ends."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PROMISES, REPOSITORY, needs_root, patience, servers_yml, traces

from swarmer.stacks.vagrant.plan import prefix
from swarmer.state import ClusterHome

pytestmark = needs_root("vagrant", "qemu-img", "virsh")

NETWORK = "10.97.8"

#: Seconds. An emulated machine boots in one minute on an idle computer of two cores, and in several on a busy one.
RUN = int(patience(1200))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A SWARMER_HOME; nothing of its cluster may be left on this machine afterwards."""
    home = tmp_path / "home"
    monkeypatch.setenv("SWARMER_HOME", str(home))
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "libvirt")
    description = servers_yml(NETWORK).replace("memory: 1024, cpus: 2", "memory: 1024, cpus: 1")
    (tmp_path / "servers.yml").write_text(description)
    yield home
    assert not traces(home, NETWORK)
    assert not _machines()
    assert not [*Path("/sys/fs/cgroup").glob(f"*/machine/qemu-*-{_prefix()}*")]


def _start(home: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in the folder of `servers.yml`, with a running libvirt."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [str(REPOSITORY / "bin/with-libvirt"), sys.executable, "-m", *words],
        cwd=home.parent,
        env={**environment, "SWARMER_HOME": str(home), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _promises(name: str) -> list[str]:
    options = ["--stack=vagrant", f"--rootdir={REPOSITORY}", "-c", str(REPOSITORY / "pytest.ini")]
    return ["pytest", str(PROMISES / name), *options, "-p", "no:cacheprovider"]


def _prefix() -> str:
    """The prefix of the names of this home's machines."""
    return prefix(ClusterHome("vagrant", "harness"))


def _machines() -> list[str]:
    """The processes of this home's machines."""
    name = f"guest={_prefix()}"
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listing if "qemu-system" in line and name in line]


@pytest.mark.long
def test_a_run_on_a_virtual_machine_keeps_its_promises_and_leaves_nothing(home: Path) -> None:
    run = _start(home, *_promises("machine.py"))
    output, _ = run.communicate(timeout=RUN)
    assert run.returncode == 0, output
    assert "5 passed" in output
    assert not (home / "vagrant/harness/ledger.json").exists()
    assert not (home / "vagrant/harness/vagrant").exists()


def test_after_kill_9_the_garbage_collection_removes_what_is_left(home: Path) -> None:
    """The run is killed while Vagrant is still creating the machine; libvirt outlives the run."""
    script = f"""
        cd {home.parent}
        python -m {shlex.join(_promises("machine.py"))} >run.log 2>&1 &
        until virsh --connect qemu:///system list --name | grep {_prefix()}; do sleep 0.2; done
        kill -KILL $!
        swarmer gc
        for kind in list net-list; do virsh --connect qemu:///system $kind --all; done
        virsh --connect qemu:///system vol-list default
        ps -e -o args | grep '[v]agrant up' || echo "no vagrant"
    """
    output = _run_script(home, script)
    assert "removed the leftovers of vagrant:harness" in output
    assert _prefix() not in output.partition("removed the leftovers")[2]
    assert output.rstrip().endswith("no vagrant")
    assert not (home / "vagrant/harness/ledger.json").exists()
    assert not (home / "vagrant/harness/vagrant").exists()


@pytest.mark.long
def test_vagrant_up_creates_the_cluster_and_vagrant_destroy_leaves_nothing(home: Path) -> None:
    script = """
        cd "$1/vagrant"
        vagrant up
        vagrant status | grep -E 'node-1 +running'
        vagrant ssh node-1 -c 'echo "this is $(hostname)"'
        until swarmer status vagrant:harness; do sleep 2; done
        ls "$SWARMER_HOME/vagrant/harness/client.pem"
        vagrant up | grep 'already provisioned'
        vagrant destroy --force
    """
    run = _run_script(home, script)
    assert "this is node-1" in run, run
    assert "vagrant:harness (kept): has converged" in run, run
    assert "removed vagrant:harness" in run, run
    assert not (home / "vagrant/harness/ledger.json").exists()
    assert not (home / "vagrant/harness/vagrant").exists()
    assert not (REPOSITORY / "vagrant/.vagrant").exists()


def test_vagrant_status_and_validate_create_nothing(home: Path) -> None:
    run = _run_script(home, 'cd "$1/vagrant"; vagrant validate; vagrant status')
    assert "Vagrantfile validated successfully" in run
    assert re.search("node-1 +not created", run)
    assert not list(home.glob("*/*/*"))


def test_a_machine_of_virtualbox_gets_its_drive_its_network_and_its_console(home: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SWARMER_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    environment["VAGRANT_DEFAULT_PROVIDER"] = "virtualbox"
    words = [sys.executable, "-m", "swarmer", "vagrant", "plan", "--stack=vagrant"]
    text = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    (tmp_path / "plan.json").write_text(text)
    plan = json.loads(text)
    environment["SWARMER_VAGRANT_PLAN"] = str(tmp_path / "plan.json")
    environment["VAGRANT_DOTFILE_PATH"] = str(tmp_path / "state")
    environment["VAGRANT_EXPERIMENTAL"] = plan["features"]
    words = ["ruby", str(REPOSITORY / "tests/machine_config.rb"), str(REPOSITORY / "vagrant"), "node-1", "virtualbox"]
    made = json.loads(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
    machine = plan["machines"][0]
    kind, network = made["networks"][0]
    assert kind == "private_network"
    assert (network["ip"], network["virtualbox__adapter_ip"]) == (f"{NETWORK}.11", f"{NETWORK}.1")
    assert network["virtualbox__mac"] == machine["mac"].replace(":", "")
    assert made["drives"] == [["dvd", machine["seed"]]]
    assert made["ssh"] == [f"{NETWORK}.11", 22]
    settings = {words[2]: words[3:] for words in made["customizations"]}
    assert settings["--memory"] == ["1024"]
    assert settings["--cpus"] == [1]
    assert settings["--uart1"][-2:] == ["file", machine["console"]]


def test_the_takeover_of_a_machine_waits_until_vagrant_watches_its_state() -> None:
    words = ["ruby", str(REPOSITORY / "tests/vagrant_watch.rb")]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert run.stdout == "taken over\n", run.stderr


def _run_script(home: Path, script: str) -> str:
    """The output of a user's shell script, of which no command may fail."""
    environment = {**os.environ, "SWARMER_HOME": str(home), "SWARMER_SERVERS": str(home.parent / "servers.yml")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    words = [str(REPOSITORY / "bin/with-libvirt"), "timeout", str(RUN), "sh", "-euc", script, "sh", str(REPOSITORY)]
    run = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.parametrize("command", [["up"], ["vagrant", "plan", "--prepare"]])
def test_without_libvirt_the_error_contains_the_command_to_start_it(home: Path, command: list[str]) -> None:
    environment = {**os.environ, "SWARMER_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mkdir -p /run/libvirt; mount -t tmpfs tmpfs /run/libvirt; exec "$@"',
        "sh",
    ]
    words += [sys.executable, "-m", "swarmer", *command, "--stack=vagrant"]
    refused = subprocess.run(words, cwd=home.parent, env=environment, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 1
    assert "cannot connect to libvirt" in refused.stderr
    assert "virtlogd -d && libvirtd -d" in refused.stderr
    assert not (home / "vagrant/harness/ledger.json").exists()
