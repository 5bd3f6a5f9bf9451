"""How fast a cluster notices that a node lost its power, and whether it suspects nodes that are only slow.

    sudo .venv/bin/python benchmarks/failure_detection.py --rounds 10 --busy 60
    sudo .venv/bin/python benchmarks/failure_detection.py --gossip '{}' --gossip '{"probe_interval": "300ms"}'

For each setting of the gossip a cluster is booted. Then, ROUNDS times, the last node (no leader) is powered off while
it holds a consul session; counted are the seconds until that session is invalid, which is when its locks are free.
After that, processes keep all of this machine's processors busy for a while; counted is how often a server takes
a living node for dead: a false alarm.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from swarmer import interrupts, lifecycle
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.seed import consul as consul_config
from swarmer.spec.file import load
from swarmer.wait import NotYet, until

#: What the command line calls the settings that a cluster has when nobody says otherwise.
OURS = json.dumps(consul_config.GOSSIP)


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes to boot.")
@click.option("--rounds", type=int, default=10, show_default=True, help="How many power-offs for each setting.")
@click.option("--busy", type=float, default=60, show_default=True, help="Seconds of load for each setting.")
@click.option("--gossip", "settings", multiple=True, default=[OURS], help="`gossip_lan` as JSON; may be repeated.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every single figure there.")
def main(servers: Path, nodes: int, rounds: int, busy: float, settings: tuple[str, ...], file: Path | None) -> None:
    """Measure the detection of failures, and false alarms."""
    spec = load(servers, size=nodes)
    found: list[dict[str, Any]] = []
    for setting in settings:
        gossip = json.loads(setting)
        with patch.dict(consul_config.GOSSIP, gossip, clear=True):
            owned = lifecycle.launch(spec)
        try:
            seconds = [_seconds_to_notice(owned.cluster) for _ in range(rounds)]
            alarms = _false_alarms(owned.cluster, busy)
        finally:
            owned.down()
        found.append({"gossip": gossip, "seconds": seconds, "busy": busy, "false_alarms": alarms})
        print(
            f"{setting}\n    noticed after {statistics.median(seconds):.2f} s (median), {min(seconds):.2f} to"
            f" {max(seconds):.2f}; {alarms} false alarms in {busy:.0f} s of load",
            flush=True,
        )
    if file:
        file.write_text(json.dumps({"nodes": nodes, "settings": found}, indent=1))


def _seconds_to_notice(cluster: Cluster) -> float:
    victim = [node for node in cluster.nodes if node is not cluster.consul_leader()][-1]
    leader = cluster.consul_leader()
    session = victim.consul.session.create()
    victim.power_off()
    start = time.monotonic()

    def probe() -> None:
        _, found = leader.consul.session.info(session)
        if found:
            raise NotYet("the session is valid")

    until("the session to be invalid", probe, timeout=60, interval=0.02)
    seconds = time.monotonic() - start
    victim.power_on()
    cluster.wait_converged()
    return round(seconds, 3)


def _false_alarms(cluster: Cluster, seconds: float) -> int:
    """How many times one node took another one for dead, or left it waiting, while all of them lived."""
    before = _alarms(cluster.nodes)
    with _load():
        interrupts.sleep(seconds)  # the measured time itself
    return _alarms(cluster.nodes) - before


def _alarms(nodes: list[Node]) -> int:
    said = [node.succeed("journalctl --unit=consul --output=cat") for node in nodes]
    return sum(line.count("EventMemberFailed") for journal in said for line in journal.splitlines())


@contextmanager
def _load() -> Iterator[None]:
    """Twice as many endless loops as there are processors."""
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
