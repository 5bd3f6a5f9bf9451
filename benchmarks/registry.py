"""How long the registry is away when its leader is lost, and what pushes and pulls cost beside a bare docker-registry.

    sudo .venv/bin/python benchmarks/registry.py --trials 50 --json registry.json

Prints percentiles over the trials:

    power-off    from the leader's hard power-off to the end of the next pull by name, and of the next push
    kill         the same, from kill -9 of docker-registry on the leader
    push, pull   of an image in four layers of random content, by docker on a node; and the ratio to a docker-registry
                 without anything around it, plain HTTP on loopback of that node, on the same disk. Pulls begin once
                 every registry node has its copy.

A pull by name asks a node's DNS for the addresses, and tries them in the order of the answer, each for half a second.
With --json, every single trial is written to a file.
"""

import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import click

from swarmer import lifecycle
from swarmer.clients import registry_client
from swarmer.clients.registry_client import Image, RegistryError, Unavailable
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.secrets.credentials import REGISTRY_PASSWORD
from swarmer.spec.file import load
from swarmer.wait import until, until_true

REPOSITORY: Final = "benchmark"

#: Seconds until an address counts as dead, and until an answer does.
PATIENCE: Final = (0.5, 5.0)

BARE: Final = "127.0.0.1:5999"
_BARE_UNIT: Final = "bare-registry"
_BARE_CONFIGURATION: Final = f"""
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: /var/lib/{_BARE_UNIT}}}}}
http: {{addr: {BARE}}}
"""

Trial = dict[str, float]


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--trials", type=int, default=10, show_default=True, help="How often the leader is lost, each way.")
@click.option("--rounds", type=int, default=3, show_default=True, help="How many images are pushed and pulled.")
@click.option("--size", type=int, default=200, show_default=True, help="Of these images, in MB.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every single figure there.")
def main(servers: Path, trials: int, rounds: int, size: int, file: Path | None) -> None:
    """Boot the cluster of SERVERS, measure, and print percentiles."""
    spec = load(servers)
    owned = lifecycle.launch(spec)
    found: dict[str, list[Trial]] = {}
    try:
        cluster = owned.cluster
        image = Image.random(100_000, layers=2)
        registry_client.pusher(cluster, cluster.registry_leader().ip).push(REPOSITORY, "1", image)
        for name, lose in (("power-off", power_off), ("kill", kill)):
            found[name] = []
            for number in range(1, trials + 1):
                found[name].append(lost_leader(cluster, lose))
                told(f"{name} {number}", found[name][-1])
        found["transport"] = []
        if rounds:
            prepare_bare(cluster.nodes[0])
        for number in range(1, rounds + 1):
            found["transport"].append(transport(cluster, cluster.nodes[0], size, number))
            told(f"{size} MB {number}", found["transport"][-1])
    finally:
        owned.down()
        if file:
            file.write_text(json.dumps({"spec": spec.model_dump(mode="json"), "trials": found}, indent=1) + "\n")
    report(found)


# -- the loss of the leader ------------------------------------------------------------------------------------


def lost_leader(cluster: Cluster, lose: Callable[[Node], None]) -> Trial:
    """Seconds from the loss of the leader to the end of the next pull, and of the next push."""
    leader = cluster.registry_leader()
    asked = next(node for node in cluster.nodes if node is not leader)
    ended: dict[str, float] = {}
    gone = threading.Event()

    def again(what: str, attempt: Callable[[IPv4Address], object]) -> None:
        while what not in ended:
            # Only what began when nothing of the leader was alive any more counts.
            counts = gone.is_set()
            for address in registry_client.addresses(cluster, asked):
                try:
                    attempt(address)
                except (RegistryError, *Unavailable):
                    continue
                if counts:
                    ended[what] = time.monotonic()
                break

    def pull(address: IPv4Address) -> None:
        registry_client.pusher(cluster, address, timeout=PATIENCE).pull(REPOSITORY, "1")

    def push(address: IPv4Address) -> None:
        registry_client.pusher(cluster, address, timeout=(PATIENCE[0], 20)).push(REPOSITORY, "2", Image.random())

    threads = [
        threading.Thread(target=again, args=(what, attempt)) for what, attempt in (("pull", pull), ("push", push))
    ]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    lose(leader)
    gone.set()
    for thread in threads:
        thread.join()
    if not leader.running:
        leader.power_on()
    cluster.wait_converged()
    return {what: round(at - start, 3) for what, at in ended.items()}


def power_off(node: Node) -> None:
    """Pull the plug."""
    node.power_off()


def kill(node: Node) -> None:
    """Kill docker-registry; systemd starts it again."""
    node.succeed("systemctl kill --signal=KILL docker-registry")


# -- pushes and pulls ------------------------------------------------------------------------------------------


def prepare_bare(node: Node) -> None:
    """Run a docker-registry without anything around it on a node, and log in to ours."""
    node.succeed(
        f"mkdir -p /var/lib/{_BARE_UNIT} && cat >/etc/{_BARE_UNIT}.yml && systemd-run --quiet --unit={_BARE_UNIT}"
        f" docker-registry serve /etc/{_BARE_UNIT}.yml",
        input=_BARE_CONFIGURATION,
    )
    node.wait_until_succeeds(f"curl -sf http://{BARE}/v2/")
    host, password = node.cluster.spec.registry_host, node.cluster.credentials.tokens[REGISTRY_PASSWORD]
    node.succeed(f"docker login --username swarmer --password-stdin {host}", input=password)


def transport(cluster: Cluster, node: Node, size: int, number: int) -> Trial:
    """Seconds that docker on a node takes to push an image that nobody has, and to pull it, here and there."""
    layer = f"{size * 1_000_000 // 4}"
    node.succeed(
        "rm -rf /root/benchmark && mkdir /root/benchmark && cd /root/benchmark && echo FROM scratch >Dockerfile"
        f" && for part in 1 2 3 4; do head -c {layer} /dev/urandom >$part && echo COPY $part /$part >>Dockerfile; done"
        " && DOCKER_BUILDKIT=0 docker build --quiet --tag benchmark . && rm -r /root/benchmark",
        timeout=300,
    )
    trial: Trial = {}
    places = [("ours", f"{cluster.spec.registry_host}/{REPOSITORY}:{number}"), ("bare", f"{BARE}/benchmark:{number}")]
    # In turns, so that neither always goes first.
    for place, name in places if number % 2 else places[::-1]:
        node.succeed(f"docker tag benchmark {name} && sync", timeout=300)
        trial[f"push {place}"] = timed(node, f"docker push --quiet {name}")
        node.succeed(f"docker rmi {name}")
    node.succeed("docker rmi benchmark")
    until_all_have_it(cluster)
    for place, name in places[::-1] if number % 2 else places:
        node.succeed("sync", timeout=300)
        trial[f"pull {place}"] = timed(node, f"docker pull --quiet {name}")
        node.succeed(f"docker rmi {name}", timeout=300)
    return trial


def until_all_have_it(cluster: Cluster) -> None:
    """Wait for the copies beyond the majority, which are made after the answer, by and by."""

    def amounts() -> set[str]:
        return {
            node.succeed("find /var/lib/docker-registry -path '*/blobs/*' -name data -size +0 | sort | sha256sum")
            for node in cluster.registry_nodes
        }

    until_true("every registry node to have the same content", lambda: len(amounts()) == 1, timeout=60)


def timed(node: Node, command: str) -> float:
    """Seconds that a command takes on a node."""

    def run() -> float:
        start = time.monotonic()
        node.succeed(command, timeout=300)
        return round(time.monotonic() - start, 3)

    return until(f"`{command}`", run, timeout=300)


# -- figures ---------------------------------------------------------------------------------------------------


def told(name: str, trial: Trial) -> None:
    """One line for a trial."""
    print(f"{name}: " + "  ".join(f"{key} {value:.2f}" for key, value in trial.items()), flush=True)


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that so many of a hundred don't exceed."""
    return sorted(values)[max(1, math.ceil(len(values) * part / 100)) - 1]


def report(found: dict[str, list[Trial]]) -> None:
    """Percentiles of all that was measured, and the ratios."""
    print(f"\n{'seconds':24}{'trials':>8}{'p50':>8}{'p99':>8}{'max':>8}")
    medians: dict[str, float] = {}
    for name, trials in found.items():
        for key in trials[0] if trials else ():
            values = [trial[key] for trial in trials]
            label = f"{name}, {key}" if name != "transport" else key
            medians[label] = statistics.median(values)
            row = "".join(f"{value:8.2f}" for value in (percentile(values, 50), percentile(values, 99), max(values)))
            print(f"{label:24}{len(values):8}{row}")
    for verb in ("push", "pull"):
        if f"{verb} bare" in medians:
            print(f"{verb}, ours to bare: {medians[f'{verb} ours'] / medians[f'{verb} bare']:.2f}")


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
