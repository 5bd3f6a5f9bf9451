"""Bad links: the netem of a node's own kernel delays, loses or reorders what the node sends to certain peers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from swarmer.cluster_node import Node
from swarmer.errors import NodeError, PromiseBroken
from swarmer.wait import NotYet

#: What a node with a bad link makes a command raise; mending tries again.
RETRIED = (NodeError, PromiseBroken)


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
        """The arguments of `tc qdisc` that make such a link."""
        words = ["netem", "limit", "10000"]
        if self.delay:
            words += ["delay", f"{self.delay * 1000:g}ms", f"{self.jitter * 1000:g}ms"]
        if self.loss:
            words += ["loss", "random", f"{self.loss * 100:g}%"]
        if self.reordered:
            words += ["reorder", f"{self.reordered * 100:g}%"]
        return " ".join(words)


def worsen(node: Node, receivers: Iterable[Node], link: Link) -> None:
    """Send what `node` has for `receivers` over a bad link; packets to others, such as the harness, are not affected.

    Raises:
        PromiseBroken: a command failed, as where the node's kernel lacks netem.
    """
    interface = _interface(node)
    # Four bands; the priority map never chooses the fourth: only packets that the filters put there are affected.
    commands = [
        f"tc qdisc replace dev {interface} root handle 1: prio bands 4 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1",
        f"tc qdisc replace dev {interface} parent 1:4 handle 40: {link.words}",
    ]
    for receiver in receivers:
        match = f"match ip dst {receiver.ip}/32"
        commands.append(f"tc filter add dev {interface} parent 1: protocol ip prio 1 u32 {match} flowid 1:4")
    node.succeed(" && ".join(commands))


def mend(node: Node) -> None:
    """Remove the bad link of a node, and prove it; a node that is switched off has none."""

    def probe() -> None:
        if not node.running:
            return
        node.execute(f"tc qdisc delete dev {_interface(node)} root")
        left = node.succeed("tc qdisc show")
        if "netem" in left:
            raise NotYet(left)

    node.until(f"the bad link of {node.name} to be removed", probe, timeout=60, retry_on=RETRIED)


def round_trip(node: Node, peer: Node, *, count: int = 5) -> float:
    """Seconds from `node` to `peer` and back, the median of `count` pings.

    Raises:
        PromiseBroken: `peer` did not answer.
    """
    output = node.execute(f"ping -n -c{count} -i0.2 -W5 {peer.ip}", timeout=60).stdout
    times = sorted(float(time) / 1000 for time in re.findall(r"time=([0-9.]+) ms", output))
    if not times:
        raise PromiseBroken(f"{node.name} gets no answer from {peer.name}: {output}")
    return times[len(times) // 2]


def lost(node: Node, peer: Node, *, count: int = 40) -> float:
    """The share of `count` pings from `node` to `peer` that gets no answer, 0 to 1.

    Raises:
        PromiseBroken: ping failed.
    """
    output = node.execute(f"ping -n -q -c{count} -i0.1 -W2 {peer.ip}", timeout=60).stdout
    found = re.search(r"([0-9.]+)% packet loss", output)
    if not found:
        raise PromiseBroken(f"{node.name} can't ping {peer.name}: {output}")
    return float(found[1]) / 100


def _interface(node: Node) -> str:
    """The name of the interface that has the node's admin address."""
    return node.succeed(f"ip -o -4 address show to {node.ip} | cut -d' ' -f2").strip()
