"""How long a cluster takes to boot and to go, and what a node costs.

    sudo .venv/bin/python benchmarks/boot.py --nodes 3 --rounds 10

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
from swarmer.spec import ConsulRole
from swarmer.spec.file import load

PHASES = ("launch", "ssh", "cloud-init", "consul", "converged", "teardown")
MEMORY = {ConsulRole.SERVER: "MiB per server", ConsulRole.AGENT: "MiB per other"}


@click.command()
@click.option("--servers", type=click.Path(path_type=Path), default=Path("servers.yml"), show_default=True)
@click.option("--stack", help="Another stack than the file's.")
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes to boot.")
@click.option("--rounds", type=int, default=5, show_default=True, help="How many times.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every single figure there.")
def main(servers: Path, stack: str | None, nodes: int, rounds: int, file: Path | None) -> None:
    """Boot NODES nodes ROUNDS times, and print the phases."""
    spec = load(servers, stack=stack, size=nodes)
    trials: list[dict[str, float]] = []
    for number in range(1, rounds + 1):
        owned = lifecycle.launch(spec)
        cluster = owned.cluster
        used: dict[str, list[int]] = {}
        for node in cluster.nodes:
            if (bytes_ := cluster.stack.memory(node.name)) is not None:
                used.setdefault(MEMORY[node.server.consul], []).append(bytes_)
        owned.down()
        trial = {**cluster.phases, **{kind: statistics.mean(all_) / 2**20 for kind, all_ in used.items()}}
        trials.append(trial)
        print(f"round {number}: " + "  ".join(f"{name} {value:.2f}" for name, value in trial.items()), flush=True)
    print(f"\n{nodes} nodes on {spec.stack}, {rounds} rounds\n{'':14}{'median':>10}{'max':>10}")
    for name in (*PHASES, *MEMORY.values()):
        if values := [trial[name] for trial in trials if name in trial]:
            print(f"{name:14}{statistics.median(values):10.2f}{max(values):10.2f}")
    if file:
        file.write_text(json.dumps({"spec": spec.model_dump(mode="json"), "trials": trials}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except SwarmerError as error:
        sys.exit(f"error: {error}")
