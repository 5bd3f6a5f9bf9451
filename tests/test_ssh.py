"""Commands on nodes: quoting, input, and what happens to those that hang.

Instead of sshd, a program named `ssh` runs the command as sshd does: by the login shell, in a session of its own, which
does not end with the client.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from swarmer.errors import NodeError
from swarmer.ssh import CommandTimeout, Ssh, end_connections
from swarmer.state import ClusterHome

_SSH = f"""#!{sys.executable}
import os, subprocess, sys
if "-O" in sys.argv or "unreachable" in sys.argv:
    sys.stderr.write("no route\\n")
    sys.exit(255)
command = sys.argv[sys.argv.index("--") + 1]
os.environ["SHELL"] = "/bin/bash"
sys.exit(subprocess.Popen(["/bin/bash", "-c", command], start_new_session=True).wait())
"""

_HANGING = "#!/bin/sh\nexec sleep 60\n"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    _install(tmp_path / "bin", _SSH, monkeypatch)
    return Ssh(ClusterHome("nspawn", "test"))


def _install(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "ssh").write_text(program)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo one; echo two", "one\ntwo\n"),
        ("echo 'it'\"'\"'s' \"$((1 + 2))\" \\$HOME", "it's 3 $HOME\n"),
        ("cat <(echo bash)", "bash\n"),
        ("cat <<END\nseveral lines\nEND", "several lines\n"),
        ("head -c1; cat", ""),
    ],
)
def test_a_command_means_what_the_login_shell_makes_of_it(ssh: Ssh, command: str, output: str) -> None:
    result = ssh.run("node", command)
    assert (result.command, result.status, result.stdout, result.stderr) == (command, 0, output, "")


def test_a_command_reads_its_input_to_the_end(ssh: Ssh) -> None:
    text = "first line\n" + "x" * 300_000
    assert ssh.run("node", "cat && echo done", input=text).stdout == text + "done\n"


@pytest.mark.parametrize("status", [1, 124, 137])
def test_the_status_is_the_commands_own(ssh: Ssh, status: int) -> None:
    assert ssh.run("node", f"echo why >&2; exit {status}").status == status
    assert ssh.run("node", f"echo why >&2; exit {status}").stderr == "why\n"


def test_a_node_that_can_not_be_reached_is_named(ssh: Ssh) -> None:
    with pytest.raises(NodeError, match="unreachable can't be reached: no route") as raised:
        ssh.run("unreachable", "true")
    assert not isinstance(raised.value, CommandTimeout)


@pytest.mark.parametrize(
    "hanging",
    [
        pytest.param("sleep 60", id="plain"),
        pytest.param("sleep 60 & wait", id="child"),
        pytest.param("trap '' TERM; sleep 60; sleep 60", id="ignores-SIGTERM"),
        pytest.param("cat > /dev/null; sleep 60", id="has-read-its-input"),
    ],
)
def test_a_command_that_is_given_up_ends_on_the_node_as_well(ssh: Ssh, tmp_path: Path, hanging: str) -> None:
    start = time.monotonic()
    with pytest.raises(CommandTimeout, match="did not end within 1 s") as raised:
        ssh.run("node", f"echo $$ > {tmp_path}/pid; echo a line; printf half; {hanging}", timeout=1, input="input")
    assert time.monotonic() - start < 1.9, "the host waits for its own time only"
    assert raised.value.output == "a line\n"
    group = os.getpgid(int((tmp_path / "pid").read_text()))
    deadline = time.monotonic() + 5
    while _exists(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(_of_group(Path(stat), group) for stat in Path("/proc").glob("[0-9]*/stat"))


def _of_group(stat: Path, group: int) -> bool:
    """Whether a process belongs to the group and is no zombie, which its parent has only forgotten."""
    try:
        state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(member_of) == group and state != "Z"


def test_a_connection_that_hangs_delays_nothing_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path / "bin", _HANGING, monkeypatch)
    monkeypatch.setattr("swarmer.ssh._EXIT_TIMEOUT", 0.3)
    sockets = tmp_path / "sockets"
    monkeypatch.setattr(ClusterHome, "control_sockets", sockets)
    sockets.mkdir()
    (sockets / "node").touch()
    Ssh(ClusterHome("nspawn", "test")).disconnect("node")
    assert not (sockets / "node").exists()
    (sockets / "node").touch()
    end_connections(sockets)
    assert not sockets.exists()
