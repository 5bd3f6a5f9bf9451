"""Changes of `/etc/resolv.conf` at the same time: each is made, none is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from swarmer import resolv_conf
from swarmer.host import dns as host_dns
from swarmer.state import ClusterHome

HOMES = [ClusterHome("nspawn", f"dev-{number}") for number in range(4)]
BEFORE = "search example\nnameserver 192.0.2.1\n"


@pytest.fixture(params=[BEFORE, ""], ids=["a file", "no file"])
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """In place of `/etc/resolv.conf`, on a host without systemd-resolved; changes are slow, and no dnsmasq runs."""
    file = tmp_path / "resolv.conf"
    if request.param:
        file.write_text(request.param)

    def slow(change: Callable[..., str]) -> Callable[..., str]:
        def changed(*args: object, **options: object) -> str:
            time.sleep(0.05)
            return change(*args, **options)

        return changed

    with monkeypatch.context() as patch:
        patch.setenv("SWARMER_HOME", str(tmp_path / "home"))
        patch.setattr(resolv_conf, "RESOLV_CONF", file)
        for name in ("with_server", "without_server"):
            patch.setattr(resolv_conf, name, slow(getattr(resolv_conf, name)))
        patch.setattr(host_dns, "_link_to", lambda _: "lo")
        patch.setattr(host_dns, "_resolved_runs", lambda: False)
        for name in ("_check_dnsmasq", "_start_dnsmasq", "_stop_dnsmasq"):
            patch.setattr(host_dns, name, lambda *_: None)
        yield file


def at_the_same_time(do: Callable[[ClusterHome], object]) -> None:
    barrier = threading.Barrier(len(HOMES))

    def start(home: ClusterHome) -> None:
        barrier.wait()
        do(home)

    with ThreadPoolExecutor(len(HOMES)) as pool:
        list(pool.map(start, HOMES))


def test_clusters_that_are_resolved_and_forgotten_at_the_same_time(file: Path) -> None:
    before = file.read_text() if file.exists() else None
    at_the_same_time(lambda home: host_dns.add(home, [IPv4Address("10.7.0.11")]))
    assert set(resolv_conf.our_servers(file.read_text())) == {host_dns.domain_of(home) for home in HOMES}
    at_the_same_time(host_dns.remove)
    assert (file.read_text() if file.exists() else None) == before


def test_what_fails_lets_the_file_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_text() if file.exists() else None

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(host_dns, "_start_dnsmasq", fail)
        host_dns.add(HOMES[0], [IPv4Address("10.7.0.11")])
    assert (file.read_text() if file.exists() else None) == before
    assert list(file.parent.glob("resolv*")) == [file] * bool(before)
    with resolv_conf.locked():
        assert not list(host_dns.resolved())
