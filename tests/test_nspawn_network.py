"""The network of an nspawn cluster, made in a network namespace that stands for a whole host."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, servers_yml

from swarmer.spec import Spec
from swarmer.spec_file import load
from swarmer.stacks import nspawn_network
from swarmer.state import ClusterHome

ROUTER = Path("/proc/sys/net/ipv4/ip_forward")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making networks needs root")


def spec(folder: Path, number: int) -> Spec:
    """A cluster that may reach out."""
    file = folder / f"servers-{number}.yml"
    file.write_text(servers_yml(f"10.97.{number}", dc=f"net{number}") + "internet: true\n")
    return load(file)


def test_forwarding_is_on_as_long_as_a_cluster_with_internet_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    program = "from test_nspawn_network import clusters_come_and_go; clusters_come_and_go()"
    script = 'mount -t tmpfs tmpfs /run && exec "$0" -c "$1"'
    subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, sys.executable, program],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
        timeout=60,
    )


def clusters_come_and_go() -> None:
    folder = Path(os.environ["SWARMER_HOME"])
    first, second = spec(folder, 1), spec(folder, 2)
    for before in ("0", "1"):
        ROUTER.write_text(before)
        for cluster in (first, second):
            nspawn_network.create(ClusterHome(cluster.stack, cluster.dc), cluster)
            assert ROUTER.read_text().strip() == "1"
        nspawn_network.remove(ClusterHome(first.stack, first.dc))
        assert ROUTER.read_text().strip() == "1"
        for _ in ("once", "again, as after an interruption"):
            nspawn_network.remove(ClusterHome(second.stack, second.dc))
            assert ROUTER.read_text().strip() == before
    assert not list(Path("/run").glob("swarmer-*"))
