"""Things done to a cluster on purpose. Each heals at the end of its `with` block, and proves the healing."""

import itertools
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal

from swarmer import netem
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import NodeError, PromiseBroken
from swarmer.wait import NotYet, until

_cuts = itertools.count(1)


class Faults:
    """The faults of one cluster.

    Attributes:
        meant: units whose failure a fault caused, by node name: no news for the audit after the scenario.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.meant: set[tuple[str, str]] = set()

    @contextmanager
    def power_off(self, *nodes: Node) -> Iterator[None]:
        """Pull the plug of nodes, all at once; afterwards they boot the same disks again.

        Nodes that the block itself switched on or replaced are left alone.
        """
        for node in nodes:
            node.cluster.stack.power_off(node.name)
            node.cluster.ssh.disconnect(node.name)
        try:
            yield
        finally:
            dead = [node for node in nodes if not node.running]
            for node in dead:
                node.cluster.stack.power_on(node.name)
            for node in dead:
                node.wait_booted()
        self.cluster.wait_converged()

    @contextmanager
    def kill(self, node: Node, unit: str) -> Iterator[None]:
        """Kill the processes of a unit with SIGKILL; afterwards systemd has it running again, as a new process."""
        before = node.main_pid(unit)
        if not before:
            raise PromiseBroken(f"{unit} isn't running on {node.name}, so it can't be killed")
        self.meant.add((node.name, unit if "." in unit else f"{unit}.service"))
        node.succeed(f"systemctl kill --signal=KILL {shlex.quote(unit)}")
        try:
            yield
        finally:

            def probe() -> None:
                pid = node.main_pid(unit)
                if pid in (0, before):
                    raise NotYet(f"main process {pid}, before {before}")

            until(f"a new process of {unit} on {node.name}", probe, timeout=20)
        self.cluster.wait_converged()

    @contextmanager
    def stop(self, *nodes: Node, unit: str) -> Iterator[None]:
        """Freeze the processes of a unit with SIGSTOP: alive, but deaf; afterwards they continue."""
        unit = shlex.quote(unit)
        for node in nodes:
            node.succeed(f"systemctl kill --signal=STOP {unit}")
        try:
            yield
        finally:
            for node in nodes:
                node.succeed(f"systemctl kill --signal=CONT {unit}")
            for node in nodes:
                until(f"{unit} to continue on {node.name}", partial(_prove_awake, node, unit), timeout=10)
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

        Packets are dropped on arrival, by a table of nftables made for this cut alone. The harness's own
        connections come from the host, which is on neither side, so they always get through.

        Args:
            direction: `to_other` drops only what `side` sends to `other`; `to_side` the reverse.
        """
        side, other = list(side), list(other)
        table = f"swarmer_cut_{next(_cuts)}"
        drops: list[tuple[Node, list[Node]]] = []
        if direction in ("both", "to_other"):
            drops += [(node, side) for node in other]
        if direction in ("both", "to_side"):
            drops += [(node, other) for node in side]
        try:
            for node, senders in drops:
                _drop(node, senders, table)
            yield
        finally:
            _each(lambda node: _heal(node, table), [node for node, _ in drops])
            for node, senders in drops:
                _prove_reachable(node, senders)
        self.cluster.wait_converged()

    @contextmanager
    def block(self, *nodes: Node, port: int) -> Iterator[None]:
        """Drop what nodes get to or from a TCP port of each other: one service is cut, while the others go on."""
        table = f"swarmer_block_{next(_cuts)}"
        rules = f"""
            table inet {table} {{
                chain arriving {{
                    type filter hook input priority -300
                    iif != "lo" tcp dport {port} drop
                    iif != "lo" tcp sport {port} drop
                }}
            }}
        """
        try:
            for node in nodes:
                node.succeed("nft --file -", input=rules)
            yield
        finally:
            _each(lambda node: _heal(node, table), nodes)
        self.cluster.wait_converged()

    @contextmanager
    def bad_link(self, side: Iterable[Node], other: Iterable[Node], link: netem.Link) -> Iterator[None]:
        """Delay, lose or reorder the packets between two sets of nodes, in both directions; needs `netem`.

        The harness's own connections are on neither side, and stay good.
        """
        side, other = list(side), list(other)
        try:
            for node in side:
                netem.worsen(node, other, link)
            for node in other:
                netem.worsen(node, side, link)
            yield
        finally:
            _each(netem.mend, [*side, *other])
        self.cluster.wait_converged()

    @contextmanager
    def clock(self, node: Node, *, ahead: float) -> Iterator[None]:
        """Put a node's clock forward by `ahead` seconds, or back by a negative number; needs `clock`.

        Afterwards it is set by the harness's own clock.
        """
        node.succeed(f"date --set=@{time.time() + ahead:.3f}")
        try:
            yield
        finally:
            if node.running:
                node.succeed(f"date --set=@{time.time():.3f}")
                wrong = clock_error(node)
                if abs(wrong) > 5:
                    raise PromiseBroken(f"the clock of {node.name} is still {wrong:.1f} s ahead")
        self.cluster.wait_converged()


def clock_error(node: Node) -> float:
    """Seconds by which a node's clock is ahead of ours, give or take the time that asking takes."""
    return float(node.succeed("date +%s.%N")) - time.time()


def _drop(node: Node, senders: list[Node], table: str) -> None:
    rules = f"""
        table inet {table} {{
            chain arriving {{
                type filter hook input priority -300
                ip saddr {{ {", ".join(str(sender.ip) for sender in senders)} }} drop
            }}
        }}
    """
    node.succeed("nft --file -", input=rules)


def _each(mend: Callable[[Node], None], nodes: Iterable[Node]) -> None:
    """Mend all nodes, also when that fails on one of them."""
    with ExitStack() as mending:
        for node in nodes:
            mending.callback(mend, node)


def _heal(node: Node, table: str) -> None:
    """Remove a cut, and prove it; a node that was switched off meanwhile has none any more."""

    def heal() -> None:
        if node.running:
            node.execute(f"nft delete table inet {table}")
            node.fail(f"nft list table inet {table}")

    until(f"{node.name} to be reached and healed", heal, timeout=60, pardon=(NodeError,))


def _prove_awake(node: Node, unit: str) -> None:
    pid = node.main_pid(unit)
    if node.succeed(f"cut -d' ' -f3 /proc/{pid}/stat").strip() == "T":
        raise NotYet(f"process {pid} is stopped")


def _prove_reachable(node: Node, senders: list[Node]) -> None:
    for sender in senders:
        if sender.running and node.running:
            sender.wait_until_succeeds(f"ping -c1 -W1 {node.ip}", timeout=10)
