"""The processor time of a node: while it boots, and at rest, unit by unit.

    sudo .venv/bin/python benchmarks/idle.py --nodes 3 --rounds 3 --rest 60

Prints the CPU seconds that a node has used when its cluster has converged, and the per cent of one processor that it
uses while nobody asks for anything: the mean over all nodes and rounds, as the control groups of the nodes count.
`node` is everything that runs on a node, except for the SSH sessions of the harness; `(other)` is what systemd has
forgotten: units that ended and that nothing refers to, and earlier runs of units that were restarted.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import click

from swarmer import interrupts, lifecycle
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.spec.file import load

#: Print the microseconds of the whole node as `node`, and of its units by name. The first knows units that have ended
#: as well, but keeps systemd busy for a while; the second reads the control groups alone.
_LOOK_BACK: Final = r"""
sed -n 's/^usage_usec/node/p' /sys/fs/cgroup/cpu.stat
systemctl show --property=Id,CPUUsageNSec --all '*.service' '*.mount' '*.socket' init.scope |
    awk -F= '$1 == "CPUUsageNSec" { used = $2 } $1 == "Id" { id = $2 } /^$/ { if (id) print id, int(used / 1000) }
             END { if (id) print id, int(used / 1000) }'
"""
_LOOK: Final = r"""
sed -n 's/^usage_usec/node/p' /sys/fs/cgroup/cpu.stat
cd /sys/fs/cgroup && grep --with-filename usage_usec init.scope/cpu.stat system.slice/*/cpu.stat |
    sed 's,/cpu.stat:usage_usec,,; s,.*/,,'
"""

#: What the look itself takes is here, as is what the harness asks.
_SESSIONS: Final = "ssh.service"

_NODE: Final = "node"
_OTHER: Final = "(other)"

#: Seconds between convergence and the first look at rest: what the boot has left to do is over by then.
_SETTLE: Final = 30.0

#: Unit to CPU seconds.
Usage = Mapping[str, float]


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--stack", help="Another stack than the file's.")
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes to boot.")
@click.option("--rounds", type=int, default=3, show_default=True, help="How many times.")
@click.option("--rest", type=float, default=60, show_default=True, help="Seconds at rest.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every single figure there.")
def main(servers: Path, stack: str | None, nodes: int, rounds: int, rest: float, file: Path | None) -> None:
    """Boot NODES nodes ROUNDS times, let them rest, and print what each unit took."""
    spec = load(servers, stack=stack, size=nodes)
    boots: list[Usage] = []
    rests: list[Usage] = []
    for number in range(1, rounds + 1):
        owned = lifecycle.launch(spec)
        try:
            booted = [_usage(node, _LOOK_BACK) for node in owned.cluster.nodes]
            rested = _at_rest(owned.cluster, rest)
        finally:
            owned.down()
        boots += booted
        rests += rested
        print(
            f"round {number}: a node took {_mean(booted, _NODE):.2f} CPU seconds to boot,"
            f" and takes {_mean(rested, _NODE):.2f} % of a processor at rest",
            flush=True,
        )
    print(f"\n{nodes} nodes on {spec.stack}, {rounds} rounds, mean of a node\n{'':40}{'boot, s':>10}{'rest, %':>10}")
    for unit in sorted({unit for usage in (*boots, *rests) for unit in usage}, key=lambda unit: -_mean(boots, unit)):
        boot, idle = _mean(boots, unit), _mean(rests, unit)
        if boot >= 0.01 or idle >= 0.01:
            print(f"{unit:40}{boot:10.2f}{idle:10.2f}")
    if file:
        file.write_text(json.dumps({"spec": spec.model_dump(mode="json"), "boot": boots, "rest": rests}, indent=1))


def _at_rest(cluster: Cluster, seconds: float) -> list[Usage]:
    """Per cent of a processor by unit, for each node."""
    interrupts.sleep(_SETTLE)
    before = [(time.monotonic(), _usage(node, _LOOK)) for node in cluster.nodes]
    interrupts.sleep(seconds)
    found: list[Usage] = []
    for node, (since, earlier) in zip(cluster.nodes, before, strict=True):
        now = _usage(node, _LOOK)
        elapsed = time.monotonic() - since
        found.append({unit: (used - earlier.get(unit, 0)) / elapsed * 100 for unit, used in now.items()})
    return found


def _usage(node: Node, look: str) -> Usage:
    """CPU seconds since the node was launched: of each unit, and of all together."""
    used = {unit: int(microseconds) / 1e6 for unit, microseconds in map(str.split, node.succeed(look).splitlines())}
    everything = used.pop(_NODE)
    return used | {_OTHER: everything - sum(used.values()), _NODE: everything - used.get(_SESSIONS, 0)}


def _mean(usages: Iterable[Usage], unit: str) -> float:
    return statistics.fmean(usage.get(unit, 0) for usage in usages)


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
