"""Making a host with systemd-resolved resolve a cluster, and undoing it.

The real systemd-resolved of this machine's distribution runs in a network of its own: a mount namespace in which it
finds a bus, its user and its `/run`, and a link to another namespace, where a dnsmasq plays a node.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NODE, HOST = "10.97.9.11", "10.97.9.1"
FILE = "nameserver 127.0.0.53\n"

BUS = """<busconfig>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/>
  </policy>
</busconfig>
"""

#: Arguments: a scratch folder; the unpacked package; the process in the node's network.
HOST_SCRIPT = f"""
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/systemd || exit 99
for file in passwd group; do
    cp /etc/$file "$1/$file"
    mount --bind "$1/$file" /etc/$file
done
grep -q ^systemd-resolve: /etc/group || echo systemd-resolve:x:990: >>/etc/group
grep -q ^systemd-resolve: /etc/passwd || echo systemd-resolve:x:990:990::/:/usr/sbin/nologin >>/etc/passwd
mount --bind "$1/resolv.conf" /etc/resolv.conf
mkdir -p /run/systemd/resolved.conf.d && cp "$1/resolved.conf" /run/systemd/resolved.conf.d/
PATH="$2/usr/bin:$PATH"
ip link set lo up
ip link add towards type veth peer name eth0 netns "$3"
ip address add {HOST}/24 dev towards
ip link set towards up
nsenter --net --target "$3" sh -c 'ip address add {NODE}/24 dev eth0; ip link set eth0 up; ip link set lo up'
nsenter --net --target "$3" dnsmasq --conf-file=/dev/null --pid-file="$1/dnsmasq.pid" --no-hosts --no-resolv \\
    --bind-interfaces --user=nobody --listen-address={NODE} --address=/node.test.nspawn/10.9.9.9
dbus-daemon --config-file="$1/bus.conf" --fork --print-pid >"$1/bus.pid"
"$2"/lib/systemd/systemd-resolved >"$1/resolved.log" 2>&1 &
echo $! >"$1/resolved.pid"
until resolvectl dns >/dev/null 2>&1; do sleep 0.05; done
"""

Shell = Callable[[str], str]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution's systemd-resolved, unpacked: to install it would change how this machine resolves."""
    folder = tmp_path_factory.mktemp("systemd-resolved")
    for command in (["apt-get", "download", "systemd-resolved"], ["sh", "-c", "dpkg-deb --extract *.deb unpacked"]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the package systemd-resolved is not to be had here: {done.stderr.strip()}")
    return folder / "unpacked"


@pytest.fixture
def shell(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """Runs a script on such a host, in which `swarmer` is the command line."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("dnsmasq", "dbus-daemon"))):
        pytest.skip("needs root, dnsmasq and dbus-daemon")
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path / "home"))
    (tmp_path / "bus.conf").write_text(BUS)
    (tmp_path / "resolv.conf").write_text(FILE)
    (tmp_path / "resolved.conf").touch()

    def run(script: str) -> str:
        with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as network:
            try:
                command = f'{HOST_SCRIPT}\nswarmer() {{ {sys.executable} -m swarmer "$@"; }}\n{script}'
                words = ["unshare", "--mount", "--net", "sh", "-c", command, "sh"]
                words += [str(tmp_path), str(package), str(network.pid)]
                done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
            finally:
                for file in tmp_path.glob("*.pid"):
                    os.kill(int(file.read_text()), 9)
                network.kill()
        return done.stdout

    yield run
    assert (tmp_path / "resolv.conf").read_text() == FILE


def test_the_host_resolves_the_cluster_by_the_link_to_its_nodes(shell: Shell) -> None:
    told = shell(f"swarmer dns up test.nspawn {NODE}; getent ahostsv4 a.node.test.nspawn")
    assert "this host resolves *.test.nspawn" in told
    assert f"systemd-resolved queries {NODE} on the link towards" in told
    assert "to undo: swarmer dns down nspawn:test" in told
    assert "10.9.9.9" in told


@pytest.mark.parametrize("setting", ["DNSSEC=yes", "DNSOverTLS=yes"])
def test_a_host_that_wants_signatures_or_tls_resolves_it_and_wants_them_again_afterwards(
    shell: Shell, tmp_path: Path, setting: str
) -> None:
    (tmp_path / "resolved.conf").write_text(f"[Resolve]\n{setting}\n")
    verb = setting.partition("=")[0].lower()
    told = shell(
        f"resolvectl {verb} towards; swarmer dns up test.nspawn {NODE}; getent ahostsv4 a.node.test.nspawn;"
        f"swarmer dns down; resolvectl {verb} towards"
    )
    assert "10.9.9.9" in told
    assert told.splitlines()[0] == told.splitlines()[-1]
    assert told.splitlines()[0].endswith("yes")


def test_afterwards_it_knows_nothing_of_the_cluster(shell: Shell, tmp_path: Path) -> None:
    told = shell(
        f"swarmer dns up test.nspawn {NODE}; swarmer dns down; resolvectl dns towards; resolvectl domain towards;"
        "getent ahostsv4 a.node.test.nspawn || echo UNRESOLVED"
    )
    assert "removed test.nspawn from systemd-resolved" in told
    left = told.partition("from systemd-resolved\n")[2]
    assert NODE not in left
    assert "test.nspawn" not in left
    assert "UNRESOLVED" in left
    assert not list(tmp_path.glob("home/*/*/*"))


def test_the_servers_of_the_default_route_are_left_alone(shell: Shell, tmp_path: Path) -> None:
    told = shell(
        f"ip route add default via {NODE}; resolvectl dns towards {NODE}; before=$(resolvectl domain towards);"
        f'swarmer dns up test.nspawn {NODE}; test "$before" = "$(resolvectl domain towards)" && echo SAME;'
        "getent ahostsv4 a.node.test.nspawn; swarmer dns down"
    )
    assert "a dnsmasq on 127.83." in told
    assert "SAME" in told
    assert "10.9.9.9" in told
    assert not list(tmp_path.glob("home/*/*/*"))
