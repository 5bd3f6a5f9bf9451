"""Commands whose output nobody reads any more end silently, as in `swarmer status | head -1`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, Harness, needs_root, servers_yml, traces

_PYTHON = [sys.executable, "-c"]


def unread(*command: str, both: bool = False) -> tuple[int, str]:
    """The status and the errors of a command whose output has no reader.

    Args:
        both: nobody reads the errors either, as behind `2>&1`.
    """
    reader, output = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            stdout=output,
            stderr=output if both else subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(output)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    "words", [["--help"], ["up", "--help"], ["ls"], ["schema"], ["render", "swarm-01"], ["down", "nspawn:none"]]
)
def test_a_command_without_a_reader_ends_silently(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    status, errors = unread(sys.executable, "-m", "swarmer", *words)
    # Of `render`, as long as there is no image.
    assert (status, [line for line in errors.splitlines() if not line.startswith("note: ")]) == (-signal.SIGPIPE, [])


_ON_NODES = """
from swarmer.cli import cli
from swarmer.cli.parallel_output import stream_prefixed
from swarmer.commands.program import Program
import click

@click.command()
def run():
    line = "echo $$ >>pids; {0}"
    stream_prefixed({{name: Program.here(["sh", "-c", line]) for name in ("one", "two")}}, width=3)

cli.load = lambda name: run
cli(["ls"])
"""


@pytest.mark.parametrize("line", ["echo short", "exec seq 100000", "echo one; exec sleep 600", "seq 100000 >&2"])
def test_programs_without_a_reader_are_ended(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    program = f"import os; os.chdir({str(tmp_path)!r})\n{_ON_NODES.format(line)}"
    assert unread(*_PYTHON, program, both=">&2" in line) == (-signal.SIGPIPE, "")
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path("/proc", pid).exists()


def test_the_output_of_programs_is_printed_line_by_line_with_their_failures() -> None:
    program = """
from swarmer.cli.parallel_output import stream_prefixed
from swarmer.commands.program import Program
names = {"a": "seq 20000", "bb": "echo no >&2; printf end; exit 3"}
print(stream_prefixed({name: Program.here(["sh", "-c", line]) for name, line in names.items()}, width=2))
"""
    done = subprocess.run([*_PYTHON, program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stderr == "bb | no\n"
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("a  | ")] == [f"a  | {number}" for number in range(1, 20001)]
    assert "bb | end" in lines
    assert lines[-1] == "['bb (3)']"


def test_a_program_that_replaces_swarmer_ends_like_everywhere_else() -> None:
    """Python ignores SIGPIPE, and what is ignored stays so."""
    program = "from swarmer.commands.program import Program; Program.here(['yes']).replace_process()"
    assert unread(*_PYTHON, program) == (-signal.SIGPIPE, "")


def test_a_broken_pipe_elsewhere_is_an_error() -> None:
    program = _ON_NODES.format("").replace("    line =", "    raise BrokenPipeError(32, 'elsewhere')\n    line =")
    done = subprocess.run([*_PYTHON, program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "BrokenPipeError: [Errno 32] elsewhere" in done.stderr


@needs_root("systemd-nspawn")
def test_up_without_a_reader_leaves_nothing(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.describe(servers_yml("10.97.7", dc="unread"))
    try:
        done = harness.run("sh", "-c", f"({sys.executable} -m swarmer up; echo $? >status) 2>&1 | head -1")
        assert "s] " in done.stdout
        assert (tmp_path / "status").read_text() == f"{128 + signal.SIGPIPE}\n"
        assert not traces(harness.home, "10.97.7.")
    finally:
        harness.swarmer("down")
