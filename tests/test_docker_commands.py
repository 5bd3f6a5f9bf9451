"""The parts of the docker commands that need no cluster: constraints, and merging tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.cli.docker import is_table
from swarmer.commands.docker import merge_tables
from swarmer.commands.docker_placement import Constraint, split_constraints

PS = """\
CONTAINER ID   IMAGE     COMMAND        CREATED          STATUS          PORTS     NAMES
0123456789ab   busybox   "sleep 300"    5 seconds ago    Up 4 seconds              web
ba9876543210   nginx     "/entry  x"    2 minutes ago    Up 2 minutes    80/tcp    proxy
"""
NONE = "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"


def test_tables_with_different_column_widths_are_merged() -> None:
    header, *rows = merge_tables({"one": PS, "two": NONE, "three": PS})
    assert header == ["NODE", "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert [(row[0], row[6], row[7]) for row in rows] == [
        ("one", "", "web"),
        ("one", "80/tcp", "proxy"),
        ("three", "", "web"),
        ("three", "80/tcp", "proxy"),
    ]
    assert rows[1][3] == '"/entry  x"'


@pytest.mark.parametrize("words", ["-q", "-aq", "-qa", "-a -q", "--quiet", "--quiet=true", "--format json", "-n 3 -q"])
def test_these_options_do_not_print_a_table(words: str) -> None:
    assert not is_table(words.split())


@pytest.mark.parametrize("words", ["", "-a", "-f name=q", "--filter label=quiet", "-as", "--no-trunc"])
def test_other_options_print_a_table(words: str) -> None:
    assert is_table(words.split())


def test_merging_no_tables_yields_none() -> None:
    assert merge_tables({"one": "", "two": ""}) == []


def test_a_cell_that_fills_its_column_is_not_cut() -> None:
    table = "REPOSITORY   TAG       SIZE\na-long-one   latest    1.2MB\n"
    assert merge_tables({"n": table})[1] == ["n", "a-long-one", "latest", "1.2MB"]


def test_constraints_are_removed_from_the_arguments() -> None:
    line = "run -d -e constraint:disk==ssd -e COLOR=blue --env=constraint:node!=one -e NAME=constraint:x==y image -e"
    rest, constraints = split_constraints(line.split())
    assert " ".join(rest) == "run -d -e COLOR=blue -e NAME=constraint:x==y image -e"
    assert constraints == [Constraint("disk", "ssd", True), Constraint("node", "one", False)]


def test_words_that_only_look_like_constraints_are_kept() -> None:
    line = ["run", "image", "echo", "constraint:a==b"]
    assert split_constraints(line) == (line, [])


@given(st.lists(st.text(max_size=8)))
def test_other_arguments_are_not_changed(arguments: list[str]) -> None:
    ordinary = [argument for argument in arguments if "constraint:" not in argument]
    assert split_constraints(ordinary) == (ordinary, [])
