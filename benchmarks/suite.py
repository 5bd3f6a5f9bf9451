"""Where the time of a run goes, by its JUnit report: each module, and the slowest scenarios.

    make scenarios ARGS="--junit-xml=report.xml"
    .venv/bin/python -m benchmarks.suite report.xml [--write]

`--write` makes the seconds of each module the order in which the next runs distribute them (`fixtures/durations.json`).
"""

import argparse
import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fixtures.workers import DURATIONS

#: How many scenarios count as the slowest.
SLOWEST = 25


def main() -> None:
    """Print the tables, and write the seconds of each module where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="what `--junit-xml` wrote")
    parser.add_argument("--write", action="store_true", help=f"update {DURATIONS.name}")
    arguments = parser.parse_args()
    scenarios = read(arguments.report)
    modules: dict[str, list[float]] = defaultdict(list)
    for (module, _), seconds in scenarios.items():
        modules[module].append(seconds)
    longest_first = sorted(modules.items(), key=lambda module: -sum(module[1]))

    console = Console()
    table = Table("module", "scenarios", "seconds", "slowest", title=f"{len(scenarios)} scenarios")
    for module, times in longest_first:
        table.add_row(module, str(len(times)), f"{sum(times):.0f}", f"{max(times):.0f}")
    table.add_row("all", str(len(scenarios)), f"{sum(scenarios.values()):.0f}", f"{max(scenarios.values()):.0f}")
    console.print(table)

    table = Table("seconds", "scenario", title=f"the slowest {SLOWEST}")
    for (module, name), seconds in sorted(scenarios.items(), key=lambda scenario: -scenario[1])[:SLOWEST]:
        table.add_row(f"{seconds:.1f}", f"{module}::{name}")
    console.print(table)
    for workers in (1, 2, 3, 4):
        seconds = side_by_side([sum(times) for _, times in longest_first], workers)
        console.print(f"{workers} side by side, were none slower for it: {seconds / 60:.1f} min")
    if arguments.write:
        measured = {module: round(sum(times)) for module, times in longest_first}
        kept = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
        DURATIONS.write_text(json.dumps(kept | measured, indent=2, sort_keys=True) + "\n")


def read(report: Path) -> dict[tuple[str, str], float]:
    """Module and name of each scenario to the seconds of its setup, itself and its teardown."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None and "classname" in case.attrib:
            # A scenario whose teardown failed has two entries.
            found[case.attrib["classname"].replace(".", "/") + ".py", case.attrib["name"]] += float(case.attrib["time"])
    return found


def side_by_side(longest_first: Sequence[float], workers: int) -> float:
    """Seconds until all modules have run, when each worker takes the next as soon as it has none."""
    ends = [0.0] * workers
    for seconds in longest_first:
        ends[ends.index(min(ends))] += seconds
    return max(ends)


if __name__ == "__main__":
    main()
