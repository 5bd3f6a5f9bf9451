"""`swarmer doctor`: what works on this machine is tried out on it."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harness import REPOSITORY, servers_yml

from swarmer.cli import cli
from swarmer.errors import HostError
from swarmer.ledger import Ledger
from swarmer.spec import file as spec_file
from swarmer.stacks import Capability, findings, kernel, stack_of
from swarmer.stacks.findings import Verdict
from swarmer.stacks.kernel import Feature
from swarmer.state import ClusterHome

NETWORK = "10.97.7"

FEATURES = (kernel.IPVS, kernel.ESP, kernel.NETEM, kernel.VIRTUAL_LINKS, kernel.PACKET_FILTER)

Doctor = Callable[..., Result]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root tries features of the kernel out")


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs `swarmer doctor` in this process, on a folder with a `servers.yml` and a `SWARMER_HOME` of its own."""
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWARMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "servers.yml").write_text(servers_yml(NETWORK, dc="doctor", count=3))
    return lambda *words: CliRunner().invoke(cli, ["doctor", *words])


def by_subject(result: Result) -> dict[str, dict[str, Any]]:
    return {finding["subject"]: finding for finding in json.loads(result.stdout)}


# -- the kernel --------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.option.split()[0])
def test_a_feature_works_as_the_kernel_was_built(feature: Feature) -> None:
    config = Path("/proc/config.gz")
    if not config.exists():
        pytest.skip("this kernel doesn't tell how it was built")
    built = gzip.decompress(config.read_bytes()).decode().splitlines()
    options = re.findall(r"CONFIG_\w+", feature.option)
    if any(f"{option}=m" in built for option in options):
        pytest.skip("whether a module can be loaded isn't known beforehand")
    assert kernel.lacks(feature) is not all(f"{option}=y" in built for option in options)


@needs_root
def test_what_is_tried_out_leaves_nothing() -> None:
    def links() -> str:
        return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout

    before = links()
    attempts = (("ip", "link", "add", "name", "left0", "type", "bridge"), ("false",))
    assert kernel.lacks(Feature("a thing", "CONFIG_THING", ("thing",), attempts))
    assert links() == before


def test_the_hint_names_the_module_to_load_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MODULES", tmp_path)
    assert kernel.remedy(kernel.NETEM, otherwise="use VMs") == "boot a kernel with CONFIG_NET_SCH_NETEM, or use VMs"
    folder = tmp_path / os.uname().release
    folder.mkdir()
    (folder / "modules.dep").write_text("kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/lib/libcrc32c.ko.xz\n")
    assert kernel.remedy(kernel.IPVS, otherwise="use VMs") == "load it: `modprobe --all ip_vs`"
    assert "linux-modules-extra" in kernel.remedy(kernel.NETEM, otherwise="use VMs")


@needs_root
def test_a_capability_is_missing_exactly_where_its_feature_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    (tmp_path / "servers.yml").write_text(servers_yml(NETWORK))
    spec = spec_file.load(tmp_path / "servers.yml")
    missing = stack_of(Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image="")).missing
    for capability, feature in (
        (Capability.IPVS, kernel.IPVS),
        (Capability.ENCRYPTED_OVERLAYS, kernel.ESP),
        (Capability.NETEM, kernel.NETEM),
    ):
        assert (capability in missing) is kernel.lacks(feature)
        if capability in missing:
            assert missing[capability] == f"nspawn nodes share the host's kernel, which lacks {feature.name}"


# -- the command -------------------------------------------------------------------------------------------


@needs_root
def test_what_boots_clusters_here_is_ok(doctor: Doctor) -> None:
    result = doctor("--json")
    found = by_subject(result)
    required = ("root", "programs", "namespaces", "virtual links", "packet filter", "inotify instances", "overlays")
    assert {found[subject]["verdict"] for subject in (*required, f"network {NETWORK}.0/24")} == {"ok"}
    assert result.exit_code == 0
    limited = [finding for finding in found.values() if finding["verdict"] == "limited"]
    assert all(finding["hint"] for finding in limited)
    table = doctor().stdout
    assert all(finding["reason"] in table and finding["hint"] in table for finding in found.values())


@needs_root
def test_without_root_the_kernel_stays_unknown(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor("--json")  # imports what the other user may have no access to
    with tempfile.TemporaryDirectory() as folder:  # nobody else has access to `tmp_path`
        shutil.copy("servers.yml", folder)
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SWARMER_HOME", f"{folder}/home")
        monkeypatch.setenv("SWARMER_CACHE", f"{folder}/cache")
        os.seteuid(65534)
        try:
            result = doctor("--json")
        finally:
            os.seteuid(0)
    assert result.exit_code == 1
    found = by_subject(result)
    assert found["root"]["verdict"] == "fails"
    assert "bin/as-root" in found["root"]["hint"]
    assert found["routing mesh"]["verdict"] == found["encrypted overlay networks"]["verdict"] == "unknown"


@needs_root
def test_a_network_in_use_fails_unless_it_is_that_of_the_cluster_itself(doctor: Doctor) -> None:
    link = f"inuse{os.getpid()}"
    subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{NETWORK}.9/24", "dev", link], check=True)
        refused = doctor("--json")
        spec = spec_file.load(Path("servers.yml"))
        Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image="").save()
        running = doctor("--json")
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True)
    finding = by_subject(refused)[f"network {NETWORK}.0/24"]
    assert (refused.exit_code, finding["verdict"]) == (1, "fails")
    assert link in finding["reason"]
    assert by_subject(running)[f"network {NETWORK}.0/24"]["verdict"] == "ok"


def test_more_nodes_than_fit_are_limited(doctor: Doctor, tmp_path: Path) -> None:
    many = servers_yml(NETWORK, dc="doctor", count=200).replace("memory: 1024", "memory: 1000000")
    (tmp_path / "servers.yml").write_text(many)
    found = by_subject(doctor("--json", "--stack=vagrant"))
    assert found["memory"]["verdict"] == "limited"
    assert "200000000" in found["memory"]["reason"]


def test_a_full_disk_fails_with_the_variable_of_its_folder(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "_NODE_DISK", 1 << 40)
    finding = by_subject(doctor("--json"))["disk of SWARMER_HOME"]
    assert finding["verdict"] == "fails"
    assert "SWARMER_HOME" in finding["hint"]


def test_a_check_that_refuses_becomes_a_finding() -> None:
    def refuse() -> None:
        raise HostError("no luck", hint="try again")

    finding = findings.checked("luck", refuse, "fine")
    assert (finding.verdict, finding.reason, finding.hint) == (Verdict.FAILS, "no luck", "try again")
    assert findings.checked("luck", lambda: None, "fine").verdict is Verdict.OK


@needs_root
def test_packet_filters_of_others_that_drop_forwarded_packets_are_named() -> None:
    """Those of iptables are opened by swarmer itself."""
    script = f"""
        set -e
        for table in 'ip filter' 'inet firewalld' 'inet mine' 'inet harmless'; do nft add table $table; done
        nft add chain ip filter FORWARD '{{ type filter hook forward priority 0; policy drop; }}'
        nft add chain inet firewalld filter_FORWARD '{{ type filter hook forward priority 10; }}'
        nft add chain inet mine gate '{{ type filter hook forward priority 10; policy drop; }}'
        nft add chain inet harmless gate '{{ type filter hook forward priority 10; }}'
        exec {sys.executable} -c 'from swarmer.stacks.nspawn.network import *; print(*filters_of_others(), sep="\\n")'
    """
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["inet firewalld filter_FORWARD", "inet mine gate"], done.stderr
