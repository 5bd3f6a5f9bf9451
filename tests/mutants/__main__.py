"""Break swarmer's protections on purpose, one at a time, and see which test notices.

    make mutants                          all of them; about a minute each, as most boot a cluster
    make mutants ARGS="acl-default-deny"  some, by name
    make mutants ARGS="--list"

Each mutant (table.py) is one change of a copy of this tree. The tests that are to notice it run there; at
least one has to fail. What was seen is written to the table in docs/proofs.md.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from mutants.table import MUTANTS, Mutant

REPOSITORY: Final = Path(__file__).parents[2]
PROOFS: Final = REPOSITORY / "docs/proofs.md"

#: The lines of docs/proofs.md between which the table is.
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"

#: Seconds that the tests of one mutant may take.
TIMEOUT: Final = 1200


@dataclass(frozen=True)
class Outcome:
    """What the tests made of a mutant.

    Attributes:
        red: the tests that failed, as `FILE::NAME`; or why no cluster came up.
        green: how many passed.
    """

    red: tuple[str, ...]
    green: int

    @property
    def noticed(self) -> bool:
        return bool(self.red)


def copy_tree(folder: Path) -> None:
    """Copy what git knows, and new files that it doesn't ignore, as they are in the working tree."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def apply(mutant: Mutant, folder: Path) -> None:
    """Change the copy.

    Raises:
        ClickException: the text to change isn't there exactly once, so the table is out of date.
    """
    for file, old, new in mutant.changes:
        path = folder / file
        text = path.read_text() if path.exists() else ""
        if text.count(old) != 1:
            raise click.ClickException(f"{mutant.name}: {file} has {text.count(old)} times {old!r}; correct the table")
        path.write_text(text.replace(old, new))


def run_tests(mutant: Mutant, folder: Path, servers: Path | None) -> Outcome:
    """Run the tests that are to notice a mutant, in a copy that has it or, for a control, has it not."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        *mutant.tests,
        "-n0",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junit-xml={report}",
    ]
    if servers and any(test.startswith("scenarios") for test in mutant.tests):
        command.append(f"--servers={servers}")
    environment = {**os.environ, "SWARMER_HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    (folder / "output.txt").write_text(done.stdout)
    if done.returncode not in (0, 1, 2):
        raise click.ClickException(f"{mutant.name}: pytest ended with {done.returncode}\n{done.stdout[-3000:]}")
    cases = ET.parse(report).getroot().iter("testcase") if report.exists() else ()
    red, green = [], 0
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            red.append(f"{case.get('file')}::{case.get('name')}")
        elif case.find("skipped") is None:
            green += 1
    if not red and done.returncode:
        lines = [line for line in done.stdout.splitlines() if "no cluster" in line]
        red = [f"the cluster doesn't boot: {lines[-1].split('no cluster: ')[-1]}" if lines else "the run ends"]
    if not red and not green:
        raise click.ClickException(f"{mutant.name}: no test ran; correct the table\n{done.stdout[-2000:]}")
    return Outcome(tuple(dict.fromkeys(red)), green)


def network_namespaces() -> set[str]:
    """The names of the network namespaces of clusters."""
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return {line.split()[0] for line in listing.splitlines() if line.startswith("swarmer-")}


def clean_up(folder: Path, namespaces: set[str]) -> None:
    """Remove what a mutant left, by the code that isn't broken; then networks that it made and didn't write down."""
    subprocess.run(
        [sys.executable, "-m", "swarmer", "gc"],
        cwd=REPOSITORY,
        env={**os.environ, "SWARMER_HOME": str(folder / "home")},
        capture_output=True,
    )
    for name in network_namespaces() - namespaces:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)  # takes the link to this host along


def rows() -> dict[str, str]:
    """The rows of the table in docs/proofs.md as it is now, by the mutant's name."""
    text = PROOFS.read_text()
    table = text[text.index(BEGIN) : text.index(END)]
    return {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}


def write(results: Mapping[str, str]) -> None:
    """Put rows into docs/proofs.md, in the order of the table of mutants; others stay as they are."""
    known = {**rows(), **results}
    text = PROOFS.read_text()
    table = [BEGIN, "| mutant | protection | how it is broken | what turns red |", "|---|---|---|---|"]
    table += [known[mutant.name] for mutant in MUTANTS if mutant.name in known]
    PROOFS.write_text(text[: text.index(BEGIN)] + "\n".join(table) + "\n" + text[text.index(END) :])


def row(mutant: Mutant, outcome: Outcome) -> str:
    """A row of the table."""
    shown = [
        f"`{test.removeprefix('scenarios/').removeprefix('tests/')}`" if "::" in test else test
        for test in outcome.red[:3]
    ]
    more = f" and {len(outcome.red) - 3} more" if len(outcome.red) > 3 else ""
    red = "<br>".join(shown) + more if outcome.noticed else "**nothing**"
    return f"| `{mutant.name}` | {mutant.protection} | {mutant.broken} | {red} |".replace("\n", " ")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--list", "listing", is_flag=True, help="Print the names and the protections.")
@click.option("--control", is_flag=True, help="Run the tests without the change first: they have to pass.")
@click.option("--servers", type=click.Path(path_type=Path, exists=True), help="The cluster file, for another network.")
def main(names: tuple[str, ...], listing: bool, control: bool, servers: Path | None) -> None:
    """Run the mutants with these NAMES, or all of them."""
    if listing:
        for mutant in MUTANTS:
            click.echo(f"{mutant.name:32}{mutant.protection}")
        return
    if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
        raise click.ClickException(f"unknown: {', '.join(sorted(unknown))}; `--list` shows all")
    unnoticed = []
    for mutant in [mutant for mutant in MUTANTS if mutant.name in names or not names]:
        with tempfile.TemporaryDirectory(prefix="swarmer-mutant-") as name:
            folder = Path(name)
            copy_tree(folder)
            start = time.monotonic()
            namespaces = network_namespaces()
            if control and (red := run_tests(mutant, folder, servers and servers.absolute()).red):
                raise click.ClickException(f"{mutant.name}: fails without the change as well: {', '.join(red)}")
            apply(mutant, folder)
            outcome = run_tests(mutant, folder, servers and servers.absolute())
            clean_up(folder, namespaces)
        click.echo(
            f"{mutant.name}: {', '.join(outcome.red) or 'NOTICED BY NOTHING'} ({time.monotonic() - start:.0f} s)"
        )
        write({mutant.name: row(mutant, outcome)})
        if not outcome.noticed:
            unnoticed.append(mutant.name)
    if unnoticed:
        raise click.ClickException(f"nothing notices {', '.join(unnoticed)}")


if __name__ == "__main__":
    main()
