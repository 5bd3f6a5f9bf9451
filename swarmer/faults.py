"""Faults: what a scenario breaks in a cluster on purpose.

Every fault is a context manager of one shape. What heals it goes onto an undo stack before it is broken; at the end of
the block, or when the breaking itself fails, all nodes are healed, each healing is proven, and all errors are raised
together. A fault that healed leaves when the cluster has converged.
"""

import itertools
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from swarmer import netem
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import NodeError, PromiseBroken
from swarmer.undo import UndoStack
from swarmer.wait import NotYet

#: Seconds in which a node that still runs must be healed; it may be cut off or busy at first.
_HEAL_TIMEOUT = 60.0

#: What a node that is cut off or busy makes a command raise; the healing tries again.
_RETRIED = (NodeError, PromiseBroken)

#: How far a clock that was set may differ from the harness's own, seconds: over SSH, setting and reading take time.
_CLOCK_TOLERANCE = 5.0

_numbers = itertools.count(1)


class Faults:
    """The faults of one cluster.

    Every method raises ExceptionGroup at the end of its block if nodes could not be healed; the message names them.

    Attributes:
        meant: (node name, unit) of each unit that a fault made fail; the audit after the scenario ignores them.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.meant: set[tuple[str, str]] = set()

    @contextmanager
    def power_off(self, *nodes: Node) -> Iterator[None]:
        """Cut the power of nodes; afterwards they boot the same disks again.

        Nodes that the block itself switched on or replaced are left alone.
        """
        switched_on: list[Node] = []

        def switch_on(node: Node) -> None:
            if not node.running:
                node.cluster.stack.power_on(node.name)
                switched_on.append(node)

        def wait_booted(node: Node) -> None:
            if node in switched_on:
                node.wait_booted()

        with UndoStack() as undo:
            for node in nodes:  # first on the stack: nodes are waited for when all of them are on
                undo.add(node.name, partial(wait_booted, node))
            for node in nodes:
                undo.add(node.name, partial(switch_on, node))
                node.power_off()
            yield
        self.cluster.wait_converged()

    @contextmanager
    def kill(self, node: Node, unit: str) -> Iterator[None]:
        """Kill the processes of a unit with SIGKILL; afterwards systemd has restarted it, with a new process.

        Raises:
            PromiseBroken: the unit isn't running.
        """
        before = _main_pid(node, unit)
        killed = False

        def wait_restarted() -> None:
            def probe() -> None:
                pid = node.main_pid(unit)
                if not pid or (killed and pid == before):
                    raise NotYet(f"main process {pid}, before {before}")

            if node.running:
                node.until(f"{unit} on {node.name} to be restarted", probe, timeout=20, retry_on=_RETRIED)

        with UndoStack() as undo:
            undo.add(node.name, wait_restarted)
            self.meant.add((node.name, unit if "." in unit else f"{unit}.service"))
            node.succeed(f"systemctl kill --signal=KILL {shlex.quote(unit)}")
            killed = True
            yield
        self.cluster.wait_converged()

    @contextmanager
    def stop(self, *nodes: Node, unit: str) -> Iterator[None]:
        """Suspend the processes of a unit with SIGSTOP: they exist, but do not react; afterwards they continue.

        Raises:
            PromiseBroken: the unit isn't running.
        """
        with UndoStack() as undo:
            for node in nodes:
                _main_pid(node, unit)
                undo.add(node.name, partial(_resume, node, unit))
                node.succeed(f"systemctl kill --signal=STOP {shlex.quote(unit)}")
            yield
        self.cluster.wait_converged()

    @contextmanager
    def partition(
        self,
        side: Iterable[Node],
        other: Iterable[Node],
        *,
        direction: Literal["both", "to_other", "to_side"] = "both",
    ) -> Iterator[None]:
        """Cut the network between two sets of nodes.

        The receiver drops the packets, by an nftables table that belongs to this cut alone. The harness connects from
        the host, which is on neither side, so its connections are not affected.

        Args:
            direction: `to_other` drops only what `side` sends to `other`; `to_side` the reverse.
        """
        side, other = list(side), list(other)
        drops: list[tuple[Node, list[Node]]] = []
        if direction in ("both", "to_other"):
            drops += [(node, side) for node in other]
        if direction in ("both", "to_side"):
            drops += [(node, other) for node in side]
        table = f"swarmer_cut_{next(_numbers)}"
        with UndoStack() as undo:
            for node, senders in drops:  # first on the stack: connections are proven when every cut is removed
                undo.add(node.name, partial(_prove_reachable, node, senders))
            for node, senders in drops:
                undo.add(node.name, partial(_delete_table, node, table))
                addresses = ", ".join(str(sender.ip) for sender in senders)
                _add_table(node, table, f"ip saddr {{ {addresses} }} drop")
            yield
        self.cluster.wait_converged()

    @contextmanager
    def block(self, *nodes: Node, port: int) -> Iterator[None]:
        """Drop what nodes send to or from a TCP port of each other: one service is cut off, the others are not."""
        table = f"swarmer_block_{next(_numbers)}"
        with UndoStack() as undo:
            for node in nodes:
                undo.add(node.name, partial(_delete_table, node, table))
                _add_table(node, table, f'iif != "lo" tcp dport {port} drop', f'iif != "lo" tcp sport {port} drop')
            yield
        self.cluster.wait_converged()

    @contextmanager
    def bad_link(self, side: Iterable[Node], other: Iterable[Node], link: netem.Link) -> Iterator[None]:
        """Delay, lose or reorder the packets between two sets of nodes, in both directions; needs `netem`.

        The harness's own connections are on neither side, and are not affected. A node has one bad link at a time.
        """
        side, other = list(side), list(other)
        with UndoStack() as undo:
            for node, receivers in [(node, other) for node in side] + [(node, side) for node in other]:
                undo.add(node.name, partial(netem.mend, node))
                netem.worsen(node, receivers, link)
            yield
        self.cluster.wait_converged()

    @contextmanager
    def clock(self, node: Node, *, ahead: float) -> Iterator[None]:
        """Set a node's clock `ahead` seconds forward, or back by a negative number; needs `clock`.

        Afterwards it is set to the harness's own time.
        """
        with UndoStack() as undo:
            undo.add(node.name, partial(_correct_clock, node))
            node.succeed(f"date --set=@{time.time() + ahead:.3f}")
            yield
        self.cluster.wait_converged()


def clock_error(node: Node) -> float:
    """Seconds by which a node's clock is ahead of the harness's, not counting the time that reading it takes."""
    return float(node.succeed("date +%s.%N")) - time.time()


def _main_pid(node: Node, unit: str) -> int:
    """The main process of a unit.

    Raises:
        PromiseBroken: it has none.
    """
    if not (pid := node.main_pid(unit)):
        raise PromiseBroken(f"{unit} isn't running on {node.name}, so it can't be disturbed")
    return pid


def _add_table(node: Node, table: str, *rules: str) -> None:
    """Make a node apply rules of nftables to all packets that arrive."""
    chain = "\n".join(["type filter hook input priority -300", *rules])
    node.succeed("nft --file -", input=f"table inet {table} {{\nchain arriving {{\n{chain}\n}}\n}}\n")


# -- healing: each accepts that there is nothing to heal, and that the node was switched off meanwhile ----------------


def _delete_table(node: Node, table: str) -> None:
    def probe() -> None:
        if node.running:
            node.execute(f"nft delete table inet {table}")
            if table in node.succeed("nft list tables").split():
                raise NotYet("it still exists")

    node.until(
        f"the packet filter {table} of {node.name} to be deleted", probe, timeout=_HEAL_TIMEOUT, retry_on=_RETRIED
    )


def _prove_reachable(node: Node, senders: list[Node]) -> None:
    for sender in senders:
        if sender.running and node.running:
            sender.wait_until_succeeds(f"ping -c1 -W1 {node.ip}", timeout=10)


def _resume(node: Node, unit: str) -> None:
    def probe() -> None:
        if node.running:
            node.execute(f"systemctl kill --signal=CONT {shlex.quote(unit)}")
            pid = _main_pid(node, unit)
            if node.succeed(f"cut -d' ' -f3 /proc/{pid}/stat").strip() == "T":
                raise NotYet(f"process {pid} is stopped")

    node.until(f"{unit} to continue on {node.name}", probe, timeout=_HEAL_TIMEOUT, retry_on=_RETRIED)


def _correct_clock(node: Node) -> None:
    def probe() -> None:
        if node.running:
            node.succeed(f"date --set=@{time.time():.3f}")
            error = clock_error(node)
            if abs(error) > _CLOCK_TOLERANCE:
                raise NotYet(f"it is {error:.1f} s ahead")

    node.until(f"the clock of {node.name} to be correct", probe, timeout=_HEAL_TIMEOUT, retry_on=_RETRIED)
