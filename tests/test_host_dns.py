"""Making a host without systemd-resolved resolve a cluster, and undoing it, whatever died in between.

Each test runs in a mount namespace with an `/etc/resolv.conf` of its own; everything else is the real thing: the
commands, dnsmasq, the C library's resolver. Two more dnsmasq play a node, and the server that the host had before.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from harness import wait_for

from swarmer import resolv_conf
from swarmer.host import dns as host_dns
from swarmer.ledger import Ledger
from swarmer.spec import file as spec_file
from swarmer.state import ClusterHome

NODE, BEFORE = "127.84.0.1", "127.84.0.2"
FILE = f"# written by hand\nsearch example\nnameserver {BEFORE}\noptions timeout:1\n"
OTHER = "test.aws"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dnsmasq") or bool(shutil.which("resolvectl")),
    reason="needs root, dnsmasq, and a host without systemd-resolved",
)

Shell = Callable[[str], str]


@pytest.fixture
def servers() -> Iterator[None]:
    """A node that knows 10.9.9.9, and the server of before, which knows 10.8.8.8."""
    plain = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-hosts", "--no-resolv"]
    plain += ["--bind-interfaces", "--user=nobody"]
    started = [
        subprocess.Popen([*plain, f"--listen-address={NODE}", "--address=/node.test.nspawn/10.9.9.9"]),
        subprocess.Popen([*plain, f"--listen-address={BEFORE}", "--address=/elsewhere/10.8.8.8"]),
    ]
    yield
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "resolv.conf"
    file.write_text(FILE)
    return file


@pytest.fixture
def shell(servers: None, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:  # noqa: ARG001
    """Runs a script in which `swarmer` is the command line, and `/etc/resolv.conf` is `file`."""
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))

    def run(script: str) -> str:
        mounted = f"mount --make-rprivate / && mount --bind {file} /etc/resolv.conf || exit 99"
        command = f'{mounted}\nswarmer() {{ {sys.executable} -m swarmer "$@"; }}\n{script}'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout

    yield run
    run("swarmer dns down")
    assert ours(tmp_path) == []


def ours(folder: Path) -> list[str]:
    """The processes that have a file of this test's home in their command line."""
    listed = subprocess.run(["pgrep", "-af", f"conf-file={folder}/home"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if "pgrep" not in line]


def test_the_host_resolves_the_cluster_and_all_that_it_did_before(shell: Shell, file: Path) -> None:
    told = shell(
        f"swarmer dns up test.nspawn {NODE}; getent ahostsv4 a.node.test.nspawn; getent ahostsv4 b.elsewhere;"
        "swarmer dns down nspawn:test; getent ahostsv4 b.elsewhere || echo UNRESOLVED"
    )
    assert "this host resolves *.test.nspawn" in told
    assert "to undo: swarmer dns down nspawn:test" in told
    assert "10.9.9.9" in told
    assert "10.8.8.8" in told
    assert "UNRESOLVED" not in told
    assert file.read_text() == FILE


def test_every_server_of_before_is_forwarded_to_and_named(shell: Shell, file: Path, tmp_path: Path) -> None:
    before = f"nameserver 2001:db8::53\nnameserver {BEFORE} # office\n"
    file.write_text(before)
    told = shell(
        f"swarmer dns up test.nspawn {NODE}; grep ^server= {tmp_path}/home/nspawn/test/dnsmasq.conf;"
        "getent ahostsv4 b.elsewhere; swarmer dns down"
    )
    assert f"it forwards all other names to 2001:db8::53, {BEFORE}" in told
    assert {"server=2001:db8::53", f"server={BEFORE}"} <= set(told.splitlines())
    assert "10.8.8.8" in told
    assert file.read_text() == before


def test_without_a_server_of_before_that_is_reported(shell: Shell, file: Path) -> None:
    file.write_text("search example\n")
    told = shell(f"swarmer dns up test.nspawn {NODE}; getent ahostsv4 a.node.test.nspawn; swarmer dns down")
    assert "it resolves no others, because /etc/resolv.conf lists no server for them" in told
    assert "10.9.9.9" in told
    assert file.read_text() == "search example\n"


def test_up_twice_is_up_once_and_down_twice_says_so(shell: Shell, file: Path) -> None:
    told = shell(
        f"swarmer dns up test.nspawn {NODE}; swarmer dns up test.nspawn {NODE}; cat /etc/resolv.conf;"
        "swarmer dns down; swarmer dns down test.nspawn"
    )
    assert told.count("# swarmer test.nspawn: begin") == 1
    assert "this host does not resolve test.nspawn" in told
    assert file.read_text() == FILE


@pytest.mark.parametrize("first", ["test.nspawn", OTHER])
def test_two_clusters_are_resolved_and_end_in_any_order(shell: Shell, file: Path, first: str) -> None:
    second = OTHER if first == "test.nspawn" else "test.nspawn"
    told = shell(
        f"swarmer dns up {OTHER} {BEFORE}; swarmer dns up test.nspawn {NODE}; getent ahostsv4 a.node.test.nspawn;"
        f"getent ahostsv4 b.elsewhere; swarmer dns down {first}; grep nameserver /etc/resolv.conf;"
        f"getent ahostsv4 c.elsewhere || echo UNRESOLVED; swarmer dns down {second}"
    )
    assert "10.9.9.9" in told
    assert "UNRESOLVED" not in told
    assert told.count("nameserver 127.83.") == 1
    assert file.read_text() == FILE


@pytest.mark.parametrize("first", ["own", "other"])
def test_a_cluster_of_the_same_name_in_another_home_stays_resolved(
    shell: Shell, file: Path, tmp_path: Path, first: str
) -> None:
    own = f"swarmer dns up test.nspawn {BEFORE}"
    other = f"(export SWARMER_HOME={tmp_path}/home-of-another; swarmer dns up test.nspawn {NODE})"
    told = shell(
        f"{own if first == 'own' else other}; {other if first == 'own' else own}; swarmer dns down;"
        f"grep nameserver /etc/resolv.conf; getent ahostsv4 a.node.test.nspawn;"
        f"export SWARMER_HOME={tmp_path}/home-of-another; swarmer dns down"
    )
    assert told.count("nameserver 127.83.") == 1
    assert "10.9.9.9" in told
    assert file.read_text() == FILE


@pytest.mark.parametrize("target", ["missing", "empty"])
def test_a_link_to_a_file_without_servers_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    link, there = tmp_path / "resolv.conf", tmp_path / "target"
    link.symlink_to(there)
    if target == "empty":
        there.touch()
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", link)
    home = ClusterHome("nspawn", "test")
    made = host_dns.add(home, [IPv4Address(NODE)])
    assert f"nameserver {made.where}\n" in there.read_text()
    host_dns.remove(home)
    assert link.is_symlink()
    assert there.read_text() == ""


def test_lines_that_others_wrote_meanwhile_stay(shell: Shell, file: Path) -> None:
    shell(f"swarmer dns up test.nspawn {NODE}; echo 'nameserver 192.0.2.1' >>/etc/resolv.conf; swarmer dns down")
    assert file.read_text() == FILE + "nameserver 192.0.2.1\n"


def test_a_file_that_somebody_wrote_anew_stays_as_it_is(shell: Shell, file: Path) -> None:
    shell(f"swarmer dns up test.nspawn {NODE}; echo 'nameserver 192.0.2.1' >/etc/resolv.conf; swarmer dns down")
    assert file.read_text() == "nameserver 192.0.2.1\n"


@pytest.mark.parametrize("milliseconds", [200, 300, 400, 500, 600, 800])
def test_killed_at_any_moment_nothing_is_left_after_down(
    shell: Shell, file: Path, tmp_path: Path, milliseconds: int
) -> None:
    shell(
        f"{sys.executable} -m swarmer dns up test.nspawn {NODE} & sleep {milliseconds / 1000}; kill -9 $!; wait;"
        "swarmer dns down"
    )
    assert ours(tmp_path) == []
    assert file.read_text() == FILE


def test_it_ends_with_the_cluster(shell: Shell, file: Path, tmp_path: Path) -> None:
    (tmp_path / "servers.yml").write_text(
        "admin_network: 192.168.149.0/24\nstack: nspawn\ndc: test\n"
        "servers:\n  - {name: one, memory: 512, cpus: 1, ip: 192.168.149.11}\n"
    )
    spec = spec_file.load(tmp_path / "servers.yml")
    Ledger(ClusterHome(spec.stack, spec.dc), spec=spec, image="none", kept=True).save()
    told = shell(f"swarmer dns up test.nspawn {NODE}; swarmer down nspawn:test; getent ahostsv4 b.elsewhere")
    assert "removed nspawn:test" in told
    assert "10.8.8.8" in told
    assert ours(tmp_path) == []
    assert file.read_text() == FILE


def test_an_address_that_is_none_is_told(shell: Shell, file: Path) -> None:
    assert "is not an IPv4 address" in shell("swarmer dns up test.nspawn nowhere")
    assert file.read_text() == FILE


def test_a_port_that_is_taken_leaves_everything_as_it_was(shell: Shell, file: Path, tmp_path: Path) -> None:
    told = shell(f"swarmer dns up test.nspawn {NODE}; grep -m1 nameserver /etc/resolv.conf; swarmer dns down")
    address = next(line.split()[1] for line in told.splitlines() if line.startswith("nameserver"))
    taker = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-resolv"]
    taker += ["--bind-interfaces", f"--listen-address={address}"]
    with subprocess.Popen(taker) as taken:
        wait_for("its port", lambda: f"{address}:53" in subprocess.getoutput("ss -Hlun"), timeout=5)
        told = shell(f"swarmer dns up test.nspawn {NODE}")
        taken.send_signal(signal.SIGTERM)
    assert told.startswith(f"error: another program listens on port 53 of {address}")
    assert "hint: `ss -lnptu 'sport = :53'` shows it" in told
    assert ours(tmp_path) == []
    assert file.read_text() == FILE


def test_our_lines_are_known_from_others() -> None:
    text = resolv_conf.with_server(FILE, "test.nspawn", IPv4Address("127.83.0.1"), undo="swarmer dns down")
    both = resolv_conf.with_server(text, OTHER, IPv4Address("127.83.0.2"), undo="swarmer dns down")
    assert resolv_conf.our_servers(both) == {
        "test.nspawn": IPv4Address("127.83.0.1"),
        OTHER: IPv4Address("127.83.0.2"),
    }
    assert resolv_conf.other_servers(both) == [IPv4Address(BEFORE)]
    assert resolv_conf.without_server(both, OTHER, IPv4Address("127.83.0.2")) == text
    assert resolv_conf.without_server(text, "test.nspawn", IPv4Address("127.83.0.1")) == FILE
    assert resolv_conf.without_server(text, "test.nspawn", IPv4Address("127.83.0.2")) == text
    assert resolv_conf.without_server(text, "other.nspawn", IPv4Address("127.83.0.1")) == text


def test_of_two_servers_for_one_domain_the_upper_one_counts() -> None:
    text = resolv_conf.with_server(FILE, "test.nspawn", IPv4Address("127.83.0.1"), undo="swarmer dns down")
    both = resolv_conf.with_server(text, "test.nspawn", IPv4Address("127.83.0.2"), undo="swarmer dns down")
    assert resolv_conf.our_servers(both) == {"test.nspawn": IPv4Address("127.83.0.2")}
