"""The network of an nspawn cluster, created in a network namespace that represents a host."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from harness import REPOSITORY, Harness, servers_yml

from swarmer.errors import HostError
from swarmer.shell import run
from swarmer.spec import Spec
from swarmer.spec.file import load
from swarmer.stacks import host_network
from swarmer.stacks.nspawn import network as nspawn_network
from swarmer.state import ClusterHome

#: The two ends of the network between the host and the outside, which is one machine; from a documentation range.
UPLINK, OUTSIDE = "203.0.113.1", "203.0.113.53"

#: A host without systemd, and its internet: one machine that resolves every name to itself and serves one page.
#: Arguments: a scratch folder; the process in the outside's network namespace; the command to run on the host.
HOST = f"""
set -e
folder=$1 outside=$2
shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs /run
echo nameserver {OUTSIDE} >"$folder/resolv.conf"
mount --bind "$folder/resolv.conf" /etc/resolv.conf
ip link set lo up
ip link add uplink type veth peer name eth0 netns "$outside"
ip address add {UPLINK}/24 dev uplink
ip link set uplink up
# As docker and ufw leave it, by way of iptables.
nft add table ip filter
nft add chain ip filter FORWARD "{{ type filter hook forward priority filter; policy drop; }}"
out="nsenter --net --target $outside"
$out ip address add {OUTSIDE}/24 dev eth0
$out ip link set lo up
$out ip link set eth0 up
$out dnsmasq --conf-file=/dev/null --pid-file="$folder/dnsmasq.pid" --no-hosts --no-resolv --user=nobody \\
    --bind-interfaces --listen-address={OUTSIDE} --address=/#/{OUTSIDE}
mkdir "$folder/pages"
echo the world >"$folder/pages/outside"
$out {sys.executable} -m http.server --bind {OUTSIDE} --directory "$folder/pages" 80 >"$folder/http.log" 2>&1 &
echo $! >"$folder/http.pid"
exec "$@"
"""

ROUTER = Path("/proc/sys/net/ipv4/ip_forward")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making networks needs root")


def spec(folder: Path, number: int) -> Spec:
    """A cluster with internet."""
    file = folder / f"servers-{number}.yml"
    file.write_text(servers_yml(f"10.97.{number}", dc=f"net{number}") + "internet: true\n")
    return load(file)


def test_forwarding_is_on_as_long_as_a_cluster_with_internet_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    on_a_host_of_its_own("clusters_come_and_go")


def on_a_host_of_its_own(function: str) -> None:
    """Call a function of this module in an empty network namespace and with a separate /run."""
    program = f"from test_nspawn_network import {function}; {function}()"
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


def test_a_cluster_that_starts_while_the_last_one_is_removed_keeps_its_internet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    on_a_host_of_its_own("a_cluster_begins_while_another_ends")


def a_cluster_begins_while_another_ends() -> None:
    folder = Path(os.environ["SWARMER_HOME"])
    first, second = spec(folder, 1), spec(folder, 2)
    ending, beginning = ClusterHome(first.stack, first.dc), ClusterHome(second.stack, second.dc)
    for listing in (1, 2):
        listings = 0

        def and_one_begins(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            nonlocal listings
            done = run(command, **options)
            listings += command == ["nft", "list", "ruleset"]
            if listings == listing:  # noqa: B023
                listings += 1
                nspawn_network.create(beginning, second)
            return done

        ROUTER.write_text("0")
        nspawn_network.create(ending, first)
        with mock.patch.object(nspawn_network, "run", and_one_begins):
            nspawn_network.remove(ending)
        assert ROUTER.read_text().strip() == "1", f"cut off by what was listed before it began, listing {listing}"
        nspawn_network.remove(beginning)
        assert ROUTER.read_text().strip() == "0"
        assert not list(Path("/run").glob("swarmer-*"))


@pytest.mark.parametrize(("tables", "after"), [("filter\nnat\n", "1"), ("", "0")])
def test_a_connection_shared_by_iptables_legacy_stays_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: str, after: str
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    (tmp_path / "tables").write_text(tables)
    (tmp_path / "after").write_text(after)
    on_a_host_of_its_own("a_cluster_beside_iptables_legacy")


def a_cluster_beside_iptables_legacy() -> None:
    folder = Path(os.environ["SWARMER_HOME"])
    cluster = spec(folder, 1)
    home = ClusterHome(cluster.stack, cluster.dc)
    ROUTER.write_text("0")
    nspawn_network.create(home, cluster)
    with mock.patch.object(nspawn_network, "LEGACY_TABLES", folder / "tables"):
        nspawn_network.remove(home)
    assert ROUTER.read_text().strip() == (folder / "after").read_text()
    assert not list(Path("/run").glob("swarmer-*"))


def test_traffic_that_iptables_drops_is_accepted_as_long_as_the_cluster_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    on_a_host_of_its_own("a_cluster_beside_a_docker")


def a_cluster_beside_a_docker() -> None:
    cluster = spec(Path(os.environ["SWARMER_HOME"]), 1)
    home = ClusterHome(cluster.stack, cluster.dc)
    link = nspawn_network.host_link(home)
    ROUTER.write_text("0")
    iptables("--policy", "FORWARD", "DROP")
    iptables("--append", "FORWARD", "--in-interface", "docker0", "--jump", "ACCEPT")
    before = iptables("--list-rules", "FORWARD")
    nspawn_network.create(home, cluster)
    during = iptables("--list-rules", "FORWARD").splitlines()
    assert during[1:3] == [f"-A FORWARD -o {link} -j ACCEPT", f"-A FORWARD -i {link} -j ACCEPT"]
    iptables("--table", "nat", "--append", "POSTROUTING", "--source", "172.17.0.0/16", "--jump", "MASQUERADE")
    nspawn_network.remove(home)
    assert iptables("--list-rules", "FORWARD") == before
    assert ROUTER.read_text().strip() == "1", "docker, which came meanwhile, is cut off"
    assert not list(Path("/run").glob("swarmer-*"))


def test_a_network_is_free_beside_a_vpn_and_for_one_cluster_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    on_a_host_of_its_own("two_clusters_of_one_network_behind_a_vpn")


def two_clusters_of_one_network_behind_a_vpn() -> None:
    cluster = spec(Path(os.environ["SWARMER_HOME"]), 1)
    one, two = (
        host_network.reservation_name(ClusterHome("nspawn", dc), cluster.admin_network) for dc in ("one", "two")
    )
    vpn = ("link add tun0 type veth", "link set tun0 up", "route add 0/1 dev tun0", "route add 128/1 dev tun0")
    for words in vpn:
        subprocess.run(["ip", *words.split()], check=True)
    host_network.check_free(cluster)
    host_network.reserve_subnet(one)
    host_network.check_free(cluster, fence=one)
    # The second cluster passed its check before the first one reserved its network, and continues now.
    host_network.reserve_subnet(two)
    for own in (one, two):
        with pytest.raises(HostError, match="is in use on this host"):
            host_network.check_free(cluster, fence=own)
    host_network.release_subnet(two)
    host_network.check_free(cluster, fence=one)
    with pytest.raises(HostError, match=r"is routed \(unreachable\)"):
        host_network.check_free(cluster)


def iptables(*words: str) -> str:
    return subprocess.run(["iptables", *words], check=True, capture_output=True, text=True).stdout


def test_nodes_reach_outside_where_they_may(tmp_path: Path) -> None:
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as outside:
        into = ("unshare", "--net", "--mount", "sh", "-c", HOST, "sh", str(tmp_path), str(outside.pid))
        host = Harness(tmp_path, inside=into)
        host.describe(servers_yml("10.97.3") + "internet: true\n")
        try:
            done = host.pytest("reaching_out.py", str(REPOSITORY / "scenarios/test_dns.py"), "-k", "outside")
        finally:
            for file in tmp_path.glob("*.pid"):
                os.kill(int(file.read_text()), signal.SIGKILL)
            outside.kill()
    assert done.returncode == 0, done.stdout
    assert "3 passed, 1 skipped" in done.stdout
