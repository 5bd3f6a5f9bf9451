"""Running scenarios from other folders, beside other plugins, and with parts of pytest disabled."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from harness import PROMISES, REPOSITORY, Harness, needs_root, servers_yml, traces

NETWORK = "10.98.1"

#: Plugins that pytest can do without. `terminal` has the option -r of pytest.ini, `python` the tests themselves.
DISPENSABLE = (
    *("assertion", "cacheprovider", "capture", "debugging", "doctest", "faulthandler", "junitxml", "legacypath"),
    *("logging", "pastebin", "reports", "setuponly", "setupplan", "skipping", "stepwise", "subtests"),
    *("threadexception", "unraisableexception", "unittest", "warnings", "xdist"),
)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    """A person with a one-node cluster to be; nothing of it may be left on this machine afterwards."""
    harness = Harness(tmp_path)
    monkeypatch.setenv("SWARMER_HOME", str(harness.home))
    harness.describe(servers_yml(NETWORK))
    yield harness
    left = traces(harness.home, NETWORK)
    harness.swarmer("down")
    assert not left


def scenarios(folder: Path, *words: str) -> str:
    """What pytest prints in a folder, as a person starts it there; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env=environment | {"PYTHONSAFEPATH": "1"},  # like `pytest`, not like `python -m pytest`
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_cluster_is_that_of_the_nearest_file_or_else_of_the_repository(tmp_path: Path) -> None:
    below = tmp_path / "one/two"
    below.mkdir(parents=True)
    for folder in (tmp_path, REPOSITORY / "scenarios"):
        printed = scenarios(folder, "-rP", str(PROMISES / "spec.py"))
        assert f"servers: {REPOSITORY}/servers.yml" in printed
        assert "would run on nspawn:dev" in printed
    (tmp_path / "servers.yml").write_text(servers_yml(NETWORK))
    assert "would run on nspawn:harness" in scenarios(below, "-rP", str(PROMISES / "spec.py"))
    swarmer = [sys.executable, "-m", "swarmer", "render", "node-1"]
    assert subprocess.run(swarmer, cwd=below, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("disabled", [DISPENSABLE, ("capture",), ("junitxml",), ("skipping",), ("xdist",)])
def test_scenarios_are_collected_without_plugins_of_pytest(disabled: Sequence[str]) -> None:
    words = [word for plugin in disabled for word in ("-p", f"no:{plugin}")]
    printed = scenarios(
        REPOSITORY, "--collect-only", "-q", "--import-mode=importlib", *words, "scenarios/test_commands.py"
    )
    assert "::test_no_secret_stands_on_a_command_line" in printed


@needs_root("systemd-nspawn")
def test_a_cluster_boots_without_plugins_of_pytest(harness: Harness) -> None:
    without = [word for plugin in ("capture", "junitxml", "skipping", "debugging") for word in ("-p", f"no:{plugin}")]
    done = harness.pytest("passing.py", "--import-mode=importlib", *without)
    assert done.returncode == 0, done.stdout


@needs_root("systemd-nspawn")
def test_a_test_that_passes_at_the_second_try_keeps_no_cluster(harness: Harness) -> None:
    harness.environment["PYTHONPATH"] = f"{REPOSITORY}:{REPOSITORY}/tests"
    done = harness.pytest("second_try.py", "-p", "repeating", "--keep-cluster=failed")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert not (harness.home / "nspawn/harness/ledger.json").exists()
