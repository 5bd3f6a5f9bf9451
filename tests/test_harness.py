"""The harness itself, on real nodes: what it leaves behind, whom it blames, and what it says."""

import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Harness, needs_root, servers_yml, traces, wait_for

from swarmer import image

pytestmark = needs_root("systemd-nspawn")

NETWORK = "10.97.1"


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    """A person with a one-node cluster to be; nothing of it may be left on this machine afterwards."""
    # Who is behind a proxy has it for the way outside. This one answers nobody, so nodes have to be asked without it.
    harness = Harness(tmp_path, {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""})
    monkeypatch.setenv("SWARMER_HOME", str(harness.home))
    harness.describe(servers_yml(NETWORK))
    yield harness
    left = traces(harness.home, "10.97.")
    harness.swarmer("down")
    assert not left


def _nodes_run(harness: Harness) -> bool:
    return bool(list(harness.home.glob("nspawn/harness/nodes/*/console.log")))


def _hangs(harness: Harness) -> bool:
    return (harness.folder / "hanging").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [_nodes_run, _hangs])
def test_an_interrupted_run_tears_its_cluster_down(
    harness: Harness, number: signal.Signals, moment: Callable[[Harness], bool]
) -> None:
    run = harness.start("hanging.py")
    wait_for("sign of the moment", lambda: moment(harness))
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 2, output
    assert "tearing down" in output
    assert not (harness.home / "nspawn/harness/ledger.json").exists()


def test_a_scenario_that_was_interrupted_is_not_blamed_for_what_it_left(harness: Harness) -> None:
    run = harness.start("hanging.py", "-k", "switched_off")
    wait_for("hanging scenario", lambda: _hangs(harness))
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 2, output
    assert "broke the cluster" not in output
    assert not (harness.home / "nspawn/harness/ledger.json").exists()


@pytest.mark.parametrize("moment", [_nodes_run, _hangs])
def test_after_kill_9_the_garbage_collection_removes_all_that_is_left(
    harness: Harness, moment: Callable[[Harness], bool]
) -> None:
    run = harness.start("hanging.py")
    wait_for("sign of the moment", lambda: moment(harness))
    run.kill()
    run.communicate(timeout=60)
    assert traces(harness.home, "10.97.")
    assert "nspawn:harness" in harness.swarmer("gc").stdout
    assert not (harness.home / "nspawn/harness/ledger.json").exists()
    assert "nspawn:harness" not in harness.swarmer("gc").stdout


def test_after_kill_9_during_the_teardown_the_next_run_finishes_it(harness: Harness) -> None:
    run = harness.start("passing.py")
    ledger = harness.home / "nspawn/harness/ledger.json"
    wait_for("launched nodes", lambda: _nodes_run(harness))
    # The teardown strikes resources from the ledger, newest first: the connections are the last but one to be made.
    wait_for("beginning teardown", lambda: ledger.exists() and "processes" not in ledger.read_text())
    run.kill()
    run.communicate(timeout=60)
    again = harness.pytest("passing.py")
    assert again.returncode == 0, again.stdout


def test_a_second_signal_ends_a_run_at_once(harness: Harness) -> None:
    run = harness.start("hanging.py", "-k", "its_end")
    wait_for("hanging scenario", lambda: _hangs(harness))
    run.send_signal(signal.SIGINT)
    time.sleep(1)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=10)
    assert "swarmer gc" in output
    assert run.returncode == 128 + signal.SIGTERM
    harness.swarmer("gc")


def test_a_signal_that_comes_twice_tears_the_cluster_down(harness: Harness) -> None:
    """As from a terminal that is closed, and from `make`, which passes on what its group got already."""
    run = harness.start("hanging.py")
    wait_for("hanging scenario", lambda: _hangs(harness))
    run.send_signal(signal.SIGHUP)
    run.send_signal(signal.SIGHUP)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 2, output
    assert not (harness.home / "nspawn/harness/ledger.json").exists()


def test_a_scenario_that_hangs_fails_and_the_cluster_is_torn_down(harness: Harness) -> None:
    done = harness.pytest("hanging.py", "--deadline=2", "-k", "test_that_hangs and not end and not off")
    assert done.returncode == 1, done.stdout
    assert "hanging.py::test_that_hangs hangs: it took longer than 2 s" in done.stdout
    assert "stacks of all threads" in done.stdout
    assert "in _hang" in done.stdout
    assert not (harness.home / "nspawn/harness/ledger.json").exists()


def test_two_runs_and_their_clusters_live_side_by_side(harness: Harness, tmp_path: Path) -> None:
    other = Harness(tmp_path / "other")
    other.folder.mkdir()
    other.describe(servers_yml("10.97.2", dc="other"))
    runs = [each.start("passing.py") for each in (harness, other)]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output


def test_workers_of_one_run_have_a_cluster_each(harness: Harness) -> None:
    done = harness.pytest("workers.py", "-n2", "--dist=each")
    assert done.returncode == 0, done.stdout
    names = (harness.folder / "clusters").read_text().splitlines()
    assert sorted(names) == ["nspawn:harness-gw0 10.97.2.0/24", "nspawn:harness-gw1 10.97.3.0/24"]


@pytest.mark.parametrize("killed", ["nothing", "the controller", "a worker"])
def test_nothing_is_left_of_workers_however_they_end(harness: Harness, killed: str) -> None:
    run = harness.start("hanging.py", "-n2", "--dist=each", "-k", "test_that_hangs and not end and not off")
    wait_for("two clusters", lambda: len(list(harness.home.glob("nspawn/*/nodes/*/console.log"))) == 2)
    wait_for("hanging scenario", lambda: _hangs(harness))
    workers = [row["owner_pid"] for row in json.loads(harness.swarmer("ls", "--json").stdout)]
    assert len(workers) == 2
    if killed == "the controller":
        run.kill()
    elif killed == "a worker":
        os.kill(workers[0], signal.SIGKILL)
    if killed != "the controller":
        run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    wait_for("end of the workers", lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))
    collected = harness.swarmer("gc").stdout
    assert collected.count("removed") <= (killed != "nothing")
    assert not list(harness.home.glob("nspawn/*/ledger.json"))


def test_a_kept_cluster_is_used_again_at_once(harness: Harness) -> None:
    first = harness.pytest("passing.py", "--keep-cluster")
    assert first.returncode == 0, first.stdout
    assert "swarmer down nspawn:harness" in first.stdout
    again = harness.pytest("passing.py", "--keep-cluster")
    assert again.returncode == 0, again.stdout
    assert "attached to the kept cluster nspawn:harness" in again.stdout
    assert "launched" not in again.stdout
    without = harness.pytest("passing.py")
    assert without.returncode != 0
    assert "already running" in without.stdout
    assert "--keep-cluster" in without.stdout
    assert "nspawn:harness" not in harness.swarmer("gc").stdout
    assert harness.swarmer("down", "nspawn:harness").returncode == 0


def test_a_kept_cluster_that_does_not_fit_is_reported_with_the_way_out(harness: Harness) -> None:
    assert harness.pytest("passing.py", "--keep-cluster").returncode == 0
    harness.describe(servers_yml(NETWORK).replace("memory: 1024", "memory: 2048"))
    differs = harness.pytest("passing.py", "--keep-cluster")
    assert "created from a different servers.yml" in differs.stdout
    assert "swarmer down nspawn:harness" in differs.stdout
    harness.describe(servers_yml(NETWORK))
    ledger = harness.home / "nspawn/harness/ledger.json"
    current = image.find()
    assert current
    ledger.write_text(ledger.read_text().replace(current.id, "0123456789ab"))
    assert "was not built from the current image recipe" in harness.pytest("passing.py", "--keep-cluster").stdout
    ledger.write_text(ledger.read_text().replace("0123456789ab", current.id))
    assert harness.swarmer("exec", "nspawn:harness", "node-1", "systemctl", "stop", "consul").returncode == 0
    broken = harness.pytest("passing.py", "--keep-cluster")
    assert "is not healthy" in broken.stdout
    assert harness.swarmer("down").returncode == 0


def test_a_cluster_is_kept_after_a_failure_only(harness: Harness) -> None:
    assert harness.pytest("passing.py", "--keep-cluster=failed").returncode == 0
    assert not (harness.home / "nspawn/harness/ledger.json").exists()
    failed = harness.pytest("breaking.py", "--keep-cluster=failed", "-k", "mentions_secrets")
    assert failed.returncode == 1
    assert "kept nspawn:harness" in failed.stdout
    assert harness.swarmer("down").returncode == 0


def test_the_scenario_that_broke_the_cluster_is_blamed_and_the_next_gets_a_fresh_one(harness: Harness) -> None:
    junit = harness.folder / "junit.xml"
    done = harness.pytest("breaking.py", f"--junit-xml={junit}")
    assert "test_that_leaves_a_node_without_power broke the cluster" in done.stdout
    assert "booting a fresh cluster" in done.stdout
    assert "doomed.service: Failed with result" in done.stdout
    assert "looping.service: restarted" in done.stdout
    outcomes = {
        case.attrib["name"]: [child.tag for child in case if child.tag in ("error", "failure")]
        for case in ElementTree.parse(junit).iter("testcase")
    }
    assert outcomes == {
        "test_that_leaves_a_node_without_power": ["error"],
        "test_that_gets_a_fresh_cluster": [],
        "test_that_makes_a_unit_fail": ["error"],
        "test_that_makes_a_unit_fail_on_purpose": [],
        "test_that_leaves_a_unit_that_ends_well_again_and_again": ["error"],
        "test_that_fails_and_mentions_secrets": ["failure"],
    }
    properties = {p.attrib["name"]: p.attrib["value"] for p in ElementTree.parse(junit).iter("property")}
    assert float(properties["boot.launch.seconds"]) < float(properties["boot.converged.seconds"])
    _look_at_what_is_told_of_a_failure(harness, done.stdout)


def _look_at_what_is_told_of_a_failure(harness: Harness, output: str) -> None:
    shown = re.search(r"node logs: (\S+/test_that_fails_and_mentions_secrets/call)", output)
    assert shown
    folder = harness.folder / shown[1]
    assert {file.name for file in (folder / "node-1").iterdir()} >= {
        "console.log",
        "journal.log",
        "cloud-init-output.log",
    }
    assert "node-1" in (folder / "consul.json").read_text()
    journal = (folder / "node-1/journal.log").read_text()
    assert "*** ***" in journal
    # A node that lost its power has its last words in what was collected while it lived.
    assert any("consul" in file.read_text() for file in harness.runs.glob("*/journal/node-1.log"))
    everything = "".join(file.read_text(errors="replace") for file in harness.runs.rglob("*") if file.is_file())
    assert "`true ***` should fail, but succeeded" in output
    for secret in ("PRIVATE KEY", "of-the-key", *(harness.folder / "secrets").read_text().split()):
        assert secret not in everything + output


def test_a_network_in_use_is_refused_before_anything_is_made(harness: Harness) -> None:
    link = f"inuse{os.getpid()}"
    subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{NETWORK}.9/24", "dev", link], check=True)
        refused = harness.pytest("passing.py")
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True)
    assert refused.returncode == 1
    assert f"the network {NETWORK}.0/24 is in use on this host: {link}" in refused.stdout
    assert "choose another admin_network" in refused.stdout
    assert not _nodes_run(harness)


def test_a_missing_tool_is_named_with_the_way_to_get_it(harness: Harness, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for tool in Path(folder).iterdir():
            if tool.name != "systemd-nspawn" and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    harness.environment["PATH"] = str(tools)
    refused = harness.pytest("passing.py")
    assert "the nspawn stack needs systemd-nspawn, which this machine lacks" in refused.stdout
    assert "make setup" in refused.stdout
    assert "--stack=vagrant" in refused.stdout


def test_a_wrong_servers_yml_is_told_in_a_sentence_not_in_a_traceback(harness: Harness) -> None:
    harness.describe(servers_yml(NETWORK).replace("cpus", "cpu"))
    refused = harness.pytest("passing.py")
    assert re.search(r"servers.yml:5: .*unknown", refused.stdout)
    assert "did you mean `cpus`?" in refused.stdout
    assert "def load(" not in refused.stdout, "no source of ours"
    assert refused.stdout.count("did you mean") == 1


def test_an_image_that_can_not_boot_is_told_with_its_last_words(harness: Harness) -> None:
    """An image without an init system: each node is dead at once, and nobody waits for it until a deadline."""
    harness.environment["SWARMER_CACHE"] = str(_hollow_image(harness.folder))
    start = time.monotonic()
    refused = harness.pytest("passing.py")
    assert refused.returncode == 1
    assert "is not running; its console ended with" in refused.stdout
    assert time.monotonic() - start < 30


def test_a_failed_boot_is_removed_also_when_its_reports_can_not_be_written(harness: Harness) -> None:
    harness.environment["SWARMER_CACHE"] = str(_hollow_image(harness.folder))
    (harness.folder / "file").touch()
    refused = harness.pytest("passing.py", f"--runs={harness.folder}/file/runs")
    assert refused.returncode == 1
    assert "is not running" in refused.stdout
    assert "node logs can't be collected" in refused.stdout
    assert not (harness.home / "nspawn/harness/ledger.json").exists()


def _hollow_image(folder: Path) -> Path:
    cache = folder / "cache"
    current = image.find()
    assert current
    for root in current.roots:
        layer = cache / "images" / root.parent.name
        (layer / "root").mkdir(parents=True)
        (layer / "versions.json").write_text((root.parent / "versions.json").read_text())
    return cache
