"""A scenario that never ends; run by the tests of the harness, which end it."""

import time
from pathlib import Path

from swarmer.cluster_node import Node


def test_that_hangs(nodes: list[Node]) -> None:
    nodes[0].succeed("true")
    Path("hanging").touch()
    time.sleep(600)
