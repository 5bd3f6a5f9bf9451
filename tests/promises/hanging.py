"""Scenarios that never end; run by the tests of the harness, which end it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmer import interrupts
from swarmer.cluster_node import Node


def _hang() -> None:
    interrupts.sleep(600)


def test_that_hangs(nodes: list[Node]) -> None:
    nodes[0].succeed("true")
    Path("hanging").touch()
    _hang()


@pytest.fixture
def hanging_end() -> Iterator[None]:
    yield
    _hang()


@pytest.mark.usefixtures("hanging_end", "nodes")
def test_that_hangs_and_so_does_its_end() -> None:
    Path("hanging").touch()
    _hang()


def test_that_hangs_with_a_node_switched_off(nodes: list[Node]) -> None:
    nodes[0].power_off()
    Path("hanging").touch()
    _hang()
