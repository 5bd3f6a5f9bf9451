"""How soon a container is found by its name, and what a registrator costs that has nothing to do.

    sudo .venv/bin/python benchmarks/registrator.py --trials 100 --containers 200

Boots a cluster. A trial starts a container on one node and asks the DNS of another for its name: milliseconds from
what docker calls the start to the first answer. Then it kills the container: milliseconds from the command, the
docker client's own time included, to the first answer without it. (What docker calls the end is later than that: it
has released the network by then, and its ports.) Then many containers
are started on that node, and the trials are repeated beside them; a registrator that resyncs every second is watched
while nothing changes: its CPU time for a resync, its memory, and what it wrote to consul.
"""

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import click

from swarmer import interrupts, lifecycle
from swarmer.clients import consul_api
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.pool import Pool
from swarmer.spec.file import load
from swarmer.wait import NotYet, until

IMAGE = "busybox:benchmark"

#: Seconds between two questions to the name server.
PRECISION = 0.002

#: Seconds for which every answer has to be the same: the first may come from a consul server that is ahead of others.
STEADY = 0.2

_MAKE_IMAGE = f"""
root=$(mktemp -d) && mkdir "$root/bin" && cp "$(command -v busybox)" "$root/bin/busybox" &&
ln "$root/bin/busybox" "$root/bin/sleep" && tar -C "$root" -c . | docker import - {IMAGE} >/dev/null && rm -r "$root"
"""


@dataclass(frozen=True)
class Trial:
    """Milliseconds from the start of a container until its name resolves, and from its end until it doesn't."""

    start: float
    stop: float


@dataclass(frozen=True)
class Idle:
    """A registrator while nothing changes.

    Attributes:
        cpu: milliseconds of CPU time for one resync, and all else that it did in a second.
        writes: entries of the catalog that were written anew.
        memory: MiB.
    """

    services: int
    resyncs: int
    cpu: float
    writes: int
    memory: float


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--stack", help="Another stack than the file's.")
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes to boot.")
@click.option("--trials", type=int, default=100, show_default=True, help="How many containers to start and stop.")
@click.option("--containers", type=int, default=200, show_default=True, help="How many to run beside them.")
@click.option("--resyncs", type=int, default=10, show_default=True, help="For how many resyncs to watch.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every single figure there.")
def main(
    servers: Path, stack: str | None, nodes: int, trials: int, containers: int, resyncs: int, file: Path | None
) -> None:
    """Measure the registrator of one node of a fresh cluster."""
    owned = lifecycle.launch(load(servers, stack=stack, size=nodes))
    try:
        cluster = owned.cluster
        node, asked = cluster.nodes[-1], cluster.nodes[0]
        node.succeed(_MAKE_IMAGE)
        ahead = _clock_ahead(node)
        alone = _measured("a container", node, asked, ahead, trials)
        _run_many(node, containers)
        beside = _measured(f"a container beside {containers} others", node, asked, ahead, trials)
        idle = _idle(node, containers, resyncs)
        print(
            f"\na resync of {idle.services} services that changes nothing: {idle.cpu:.1f} ms of CPU, "
            f"{idle.writes} writes in {idle.resyncs} resyncs; {idle.memory:.0f} MiB of memory"
        )
    finally:
        owned.down()
    if file:
        trials_of = {"alone": alone, "beside": beside}
        report = {name: [asdict(trial) for trial in found] for name, found in trials_of.items()}
        file.write_text(json.dumps({"containers": containers, "trials": report, "idle": asdict(idle)}, indent=1))


def _measured(what: str, node: Node, asked: Node, ahead: float, number: int) -> list[Trial]:
    trials = [_trial(node, asked, ahead, index) for index in range(number)]
    print(f"\n{what}, {number} trials\n{'milliseconds':24}{'p50':>10}{'p99':>10}{'max':>10}", flush=True)
    for name, values in (
        ("start to found", [trial.start for trial in trials]),
        ("kill to not found", [trial.stop for trial in trials]),
    ):
        print(f"{name:24}{statistics.median(values):10.0f}{_p99(values):10.0f}{max(values):10.0f}", flush=True)
    return trials


def _p99(values: list[float]) -> float:
    """The smallest value that at least 99 of 100 don't exceed."""
    return sorted(values)[max(0, -(-len(values) * 99 // 100) - 1)]


def _trial(node: Node, asked: Node, ahead: float, number: int) -> Trial:
    container = f"trial-{number}"
    name = f"{container}.service.{node.cluster.spec.domain}"
    node.succeed(f"docker create --name {container} -e SERVICE_NAME={container} -p 7000:80 {IMAGE} sleep 1000000")
    _, found = _moment(node, asked, name, f"docker start {container}", resolves=True)
    killed, lost = _moment(node, asked, name, f"date +%s%N && docker kill {container}", resolves=False)
    started = node.succeed(f"docker inspect --format '{{{{.State.StartedAt}}}}' {container}").strip()
    node.succeed(f"docker rm {container}")
    return Trial(1000 * (found - _seconds(started) + ahead), 1000 * (lost - int(killed.splitlines()[0]) / 1e9 + ahead))


def _moment(node: Node, asked: Node, name: str, command: str, *, resolves: bool) -> tuple[str, float]:
    """What a command on a node prints, and when it has made a name resolve, or not, by this machine's clock."""
    with Pool(1) as pool:
        done = pool.submit(node.succeed, command)
        since: float | None = None

        def probe() -> float:
            nonlocal since
            now = time.time()
            if bool(asked.ask(name).records) is not resolves:
                since = None
            elif since is None:
                since = now
            if since is None or now - since < STEADY:
                raise NotYet("not so, or not for long")
            return since

        moment = until(f"{name} to be {'found' if resolves else 'gone'}", probe, timeout=20, interval=PRECISION)
        return done.result(), moment


def _run_many(node: Node, number: int) -> None:
    start = time.monotonic()
    node.succeed(
        f"seq 1 {number} | xargs -P 4 -I N docker run --detach --name many-N -e SERVICE_TAGS=a,b -e SERVICE_REGION=eu "
        f"-p 0:80 {IMAGE} sleep 1000000 >/dev/null",
        timeout=600,
    )

    def probe() -> None:
        if (found := len(_services(node))) != number:
            raise NotYet(f"{found} of {number}")

    until(f"{number} containers to be announced", probe, timeout=60)
    print(f"\n{number} containers started and announced in {time.monotonic() - start:.0f} s", flush=True)


def _idle(node: Node, containers: int, resyncs: int) -> Idle:
    """Let a registrator take over from the node's own, the same in all but its interval, and watch it."""
    variables = node.succeed("systemctl show --property=Environment --value swarmer-registrator").split()
    node.succeed(
        "systemctl stop swarmer-registrator && systemd-run --quiet --collect --unit=probe "
        + " ".join(f"--setenv={variable}" for variable in variables)
        + " /usr/bin/python3 -m swarmer.node.registrator -resync=1 -retry-attempts=-1 consul-tls://127.0.0.1:8500"
    )
    # It is there once it corrects what only a resync can notice.
    victim = sorted(_services(node))[0]
    node.consul.agent.service.deregister(victim)

    def probe() -> None:
        if victim not in _services(node):
            raise NotYet("not yet")

    until("the registrator that resyncs every second", probe, timeout=30)
    before, cpu = _settled(node), _cpu(node)
    interrupts.sleep(resyncs)
    used, after = _cpu(node) - cpu, consul_api.catalog_writes(node.consul, node.name)
    memory = node.succeed("awk '/VmRSS/ {print $2}' /proc/$(systemctl show --property=MainPID --value probe)/status")
    node.succeed("systemctl stop probe; systemctl start swarmer-registrator")
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return Idle(containers, resyncs, 1000 * used / resyncs, len(changed), int(memory) / 1024)


def _settled(node: Node) -> dict[str, int]:
    last: dict[str, int] = {}

    def probe() -> dict[str, int]:
        nonlocal last
        before, last = last, consul_api.catalog_writes(node.consul, node.name)
        if before != last:
            raise NotYet("still written")
        return last

    return until("the catalog to settle", probe, timeout=60, interval=2)


def _services(node: Node) -> set[str]:
    services = node.consul.agent.services().items()
    return {key for key, one in services if (one["Meta"] or {}).get("registrator") == node.name}


def _cpu(node: Node) -> float:
    """Seconds of CPU time that the watched registrator has used."""
    return int(node.succeed("systemctl show --property=CPUUsageNSec --value probe")) / 1e9


def _clock_ahead(node: Node) -> float:
    """Seconds by which the node's clock is ahead of ours, as good as the quickest of some questions tells."""
    told = []
    for _ in range(10):
        before = time.time()
        there = int(node.succeed("date +%s%N")) / 1e9
        after = time.time()
        told.append((after - before, there - (before + after) / 2))
    # Nodes that share our kernel share our clock; what is left is the time that the question took.
    took, ahead = min(told)
    return 0.0 if abs(ahead) < took else ahead


def _seconds(text: str) -> float:
    """Docker's times have nanoseconds, one digit group more than Python reads."""
    date, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{date}+00:00").timestamp() + float(f"0.{fraction or 0}")


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
