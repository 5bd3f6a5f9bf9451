"""How long a cluster takes to boot and to go, and what a node costs.

    sudo .venv/bin/python benchmarks/boot.py --nodes 3 --nodes 12 --rounds 5

Prints seconds since the launch began for each phase, as median and maximum over the rounds, and the memory of a
node once the cluster has converged (anonymous and shared pages of all its processes, as the host counts them): of one
that is a consul server, and so of the registry too, and of any further one.
"""

import json
import statistics
import sys
from pathlib import Path

import click

from swarmer import lifecycle
from swarmer.errors import SwarmerError
from swarmer.spec import ConsulRole, Spec
from swarmer.spec.file import load

PHASES = ("launch", "ssh", "cloud-init", "consul", "converged", "teardown")
#: Phase or kind of node to its figure.
Trial = dict[str, float]

MEMORY = {ConsulRole.SERVER: "MiB per server", ConsulRole.AGENT: "MiB per other"}


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--stack", help="Another stack than the file's.")
@click.option(
    "--nodes", "sizes", type=int, default=(3,), show_default=True, multiple=True, help="How many nodes; repeatable."
)
@click.option("--rounds", type=int, default=5, show_default=True, help="How many times.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every single figure there.")
def main(servers: Path, stack: str | None, sizes: tuple[int, ...], rounds: int, file: Path | None) -> None:
    """Boot clusters of each size ROUNDS times, and print the phases."""
    trials: dict[int, list[Trial]] = {}
    for nodes in sizes:
        spec = load(servers, stack=stack, size=nodes)
        for number in range(1, rounds + 1):
            trial = measure(spec)
            trials.setdefault(nodes, []).append(trial)
            figures = "  ".join(f"{name} {value:.2f}" for name, value in trial.items())
            print(f"{nodes} nodes on {spec.stack}, round {number}: {figures}", flush=True)
    print(f"\nmedian (max) of {rounds} rounds\n{'':14}" + "".join(f"{f'{nodes} nodes':>20}" for nodes in sizes))
    for name in (*PHASES, *MEMORY.values()):
        cells = [[trial[name] for trial in trials[nodes] if name in trial] for nodes in sizes]
        if any(cells):
            print(f"{name:14}" + "".join(f"{_summary(values):>20}" for values in cells))
    if file:
        file.write_text(json.dumps(trials, indent=1))


def measure(spec: Spec) -> Trial:
    """Boot a cluster and take it down again: phase to seconds, and kind of node to MiB of memory, on average."""
    owned = lifecycle.launch(spec)
    cluster = owned.cluster
    used: dict[str, list[int]] = {}
    try:
        for node in cluster.nodes:
            if (size := cluster.stack.memory(node.name)) is not None:
                used.setdefault(MEMORY[node.server.consul], []).append(size)
    finally:
        owned.down()
    return {**cluster.phases, **{kind: statistics.mean(sizes) / 2**20 for kind, sizes in used.items()}}


def _summary(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({max(values):.2f})" if values else "-"


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
