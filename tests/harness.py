"""Running pytest the way a person does, and looking whether anything of a cluster is left on this machine."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swarmer.state import ClusterHome
from swarmer.wait import until_true

REPOSITORY = Path(__file__).parent.parent
PROMISES = Path(__file__).parent / "promises"

#: Seconds that a fast machine with nothing else to do takes for a million additions.
_FAST = 0.075

#: Before a command that handles signals, also where the tests run in the background and ignore Ctrl-C.
HEEDING = ("env", "--default-signal=HUP,INT,TERM")


def patience(seconds: float) -> float:
    """A bound that holds on this machine as busy as it is now; `seconds` are enough for a fast one at rest."""
    begun = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number
    return seconds * max(1.0, (time.perf_counter() - begun) / _FAST)


def needs_root(*tools: str) -> pytest.MarkDecorator:
    """Skips, with the reason, the tests of whoever isn't root, or lacks a tool."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(
        os.geteuid() != 0 or bool(missing), reason=f"needs {', '.join(missing)}" if missing else "needs root"
    )


def servers_yml(network: str, *, dc: str = "harness", count: int = 1) -> str:
    """A small cluster; `network` is the first three numbers of its addresses."""
    entries = "".join(
        f"  - {{name: node-{number}, memory: 1024, cpus: 2, ip: {network}.{number + 10}}}\n"
        for number in range(1, count + 1)
    )
    return f"admin_network: {network}.0/24\nstack: nspawn\ndc: {dc}\nservers:\n{entries}"


@dataclass
class Harness:
    """One person's folder: a `servers.yml`, a `SWARMER_HOME` of its own, and where they run pytest.

    Attributes:
        inside: the command that runs all commands, such as one that leads into namespaces.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def describe(self, text: str) -> None:
        """Write `servers.yml`."""
        (self.folder / "servers.yml").write_text(text)

    def pytest(self, promises: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a file of `promises/` to its end."""
        process = self.start(promises, *options)
        output, _ = process.communicate(timeout=patience(180))
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(self, promises: str, *options: str) -> subprocess.Popen[str]:
        """Run a file of `promises/`, in a process group of its own."""
        command = [sys.executable, "-m", "pytest", str(PROMISES / promises), f"--rootdir={REPOSITORY}"]
        command += ["-c", str(REPOSITORY / "pytest.ini"), "-p", "no:cacheprovider", *options]
        return self._popen(command)

    def swarmer(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of swarmer's command line to its end."""
        return self.run(sys.executable, "-m", "swarmer", *words)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run any other command to its end."""
        process = self._popen(list(command))
        output, _ = process.communicate(timeout=patience(120))
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {**os.environ, "SWARMER_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), **self.environment}
        # What the outer pytest tells its own workers is none of the inner one's business.
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
        return subprocess.Popen(
            [*HEEDING, *self.inside, *command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def traces(home: Path, networks: str) -> set[str]:
    """What the clusters of one `SWARMER_HOME` have on this machine now, and nothing of anybody else's.

    Args:
        networks: how their addresses begin.
    """
    tags = [ClusterHome(folder.parent.name, folder.name).tag for folder in home.glob("*/*")] if home.exists() else []
    ours = [str(home), *tags, networks]
    # A dead process that init hasn't fetched yet holds nothing any more.
    found = [f"process {line}" for line in _lines("ps", "-eo", "args") if "nspawn" in line or "[mux]" in line]
    found += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines()]
    found += [f"netns {line}" for line in _lines("ip", "netns", "list")]
    found += [f"link {line}" for line in _lines("ip", "-o", "link")]
    found += [f"route {line}" for line in _lines("ip", "route")]
    found += [f"table {line}" for line in _lines("nft", "list", "tables")]
    found += [str(path) for path in Path("/run").glob("swarmer-*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob("**/swarmer-*")]
    return {line for line in found if any(mark in line for mark in ours)}


def wait_for(what: str, condition: Callable[[], object], *, timeout: float = 60) -> None:
    """Wait until a condition of the outside world holds; `timeout` as of `patience`."""
    until_true(what, condition, timeout=patience(timeout), interval=0.01)


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
