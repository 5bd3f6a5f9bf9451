"""Bad links: packets that a node sends to certain peers are delayed, lost or reordered, by its own kernel's netem."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from swarmer.cluster_node import Node
from swarmer.errors import NodeError, PromiseBroken
from swarmer.wait import NotYet, until


@dataclass(frozen=True)
class Link:
    """How bad a link is, in one direction.

    Attributes:
        delay: seconds that each packet is held back.
        jitter: seconds by which that varies; packets may overtake each other.
        loss: the share of packets that never arrive, 0 to 1.
        reordered: the share of packets that skip the delay, and so overtake those before them, 0 to 1.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    reordered: float = 0.0

    def __post_init__(self) -> None:
        if self.reordered and not self.delay:
            raise ValueError("packets can only overtake others that are delayed")

    @property
    def words(self) -> str:
        """As tc says it."""
        words = ["netem", "limit", "10000"]
        if self.delay:
            words += ["delay", f"{self.delay * 1000:g}ms", f"{self.jitter * 1000:g}ms"]
        if self.loss:
            words += ["loss", "random", f"{self.loss * 100:g}%"]
        if self.reordered:
            words += ["reorder", f"{self.reordered * 100:g}%"]
        return " ".join(words)


def worsen(node: Node, receivers: Iterable[Node], link: Link) -> None:
    """Send what `node` has for `receivers` by a bad link; everyone else, such as the harness, is spared.

    Raises:
        PromiseBroken: the node's kernel does no such thing.
    """
    interface = _interface(node)
    # Four bands; the priority map never chooses the fourth: only what is filtered into it takes the bad link.
    commands = [
        f"tc qdisc replace dev {interface} root handle 1: prio bands 4 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1",
        f"tc qdisc replace dev {interface} parent 1:4 handle 40: {link.words}",
    ]
    for receiver in receivers:
        match = f"match ip dst {receiver.ip}/32"
        commands.append(f"tc filter add dev {interface} parent 1: protocol ip prio 1 u32 {match} flowid 1:4")
    node.succeed(" && ".join(commands))


def mend(node: Node) -> None:
    """Give a node good links again, and prove it; one that was switched off meanwhile has no bad ones any more."""

    def mended() -> None:
        if not node.running:
            return
        node.execute(f"tc qdisc delete dev {_interface(node)} root")
        left = node.execute("tc qdisc show").stdout
        if "netem" in left:
            raise NotYet(f"bad links: {left}")

    until(f"good links of {node.name}", mended, timeout=60, pardon=(NodeError,))


def round_trip(node: Node, peer: Node, *, count: int = 5) -> float:
    """Seconds from `node` to `peer` and back, the median of some pings."""
    said = node.execute(f"ping -n -c{count} -i0.2 -W5 {peer.ip}", timeout=60).stdout
    times = sorted(float(time) / 1000 for time in re.findall(r"time=([0-9.]+) ms", said))
    if not times:
        raise PromiseBroken(f"{node.name} gets no answer from {peer.name}: {said}")
    return times[len(times) // 2]


def lost(node: Node, peer: Node, *, count: int = 40) -> float:
    """Which part of `count` pings from `node` to `peer` gets no answer: 0 for none, 1 for all."""
    said = node.execute(f"ping -n -q -c{count} -i0.1 -W2 {peer.ip}", timeout=60).stdout
    found = re.search(r"([0-9.]+)% packet loss", said)
    if not found:
        raise PromiseBroken(f"{node.name} can't ping {peer.name}: {said}")
    return float(found[1]) / 100


def _interface(node: Node) -> str:
    """The name of the card that has the node's address."""
    return node.succeed(f"ip -o -4 address show to {node.ip} | cut -d' ' -f2").strip()
