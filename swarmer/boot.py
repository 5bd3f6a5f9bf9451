"""The first boot of a cluster: create shared resources and nodes, then wait until the cluster has converged."""

import re
import threading
import time
from typing import Final

from swarmer import convergence
from swarmer.cluster import Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.pool import Pool
from swarmer.progress import Progress
from swarmer.secrets.authority import Authority
from swarmer.secrets.credentials import Credentials, token_names

#: Seconds within which something new must happen on any node while a cluster boots.
_STALL: Final = 60.0

#: The longest time a boot may take, in seconds on a machine of normal speed: for any cluster, plus for each node.
_BOOT_LIMIT: Final = 120.0
_LIMIT_PER_NODE: Final = 15.0


def prepare(cluster: Cluster, progress: Progress) -> None:
    """Create what all nodes share: certificates, keys, the network."""
    home, spec, ledger = cluster.home, cluster.spec, cluster.ledger
    ledger.save()
    ledger.record("path", str(home.credentials))
    Credentials.create(home.credentials, token_names(spec))
    # The saved ledger protects the layers from `swarmer image prune`, but an earlier prune may have removed them.
    if not all(root.exists() for root in cluster.image.roots):
        raise SwarmerError(f"image {cluster.image.id} was removed in the meantime", hint="try again to rebuild it")
    authority = Authority.create(home.folder, spec)
    if authority.write_client_files(home.folder):
        progress.say(f"the client certificates in {home.folder} were renewed")
    ledger.record("path", str(home.ssh))
    cluster.notes = [*cluster.stack.prepare(cluster.image), *cluster.stack.notes()]
    ledger.record("connections", str(home.control_sockets))
    cluster.ssh.prepare(cluster.endpoints)
    for note in cluster.notes:
        progress.say(note)


def boot(cluster: Cluster, progress: Progress) -> None:
    """Create the nodes of a new cluster, and wait until it has converged.

    Raises:
        SwarmerError: a node can't be created.
        PromiseBroken: a node failed, or nothing new happened for too long.
    """
    start = time.monotonic()

    def phase(name: str) -> None:
        cluster.phases[name] = round(time.monotonic() - start, 3)

    prepare(cluster, progress)
    movement = Movement(cluster)
    limit = _BOOT_LIMIT + _LIMIT_PER_NODE * len(cluster.nodes)
    servers = cluster.spec.servers
    with Pool(len(servers)) as pool:
        seeds = list(zip(servers, pool.map(cluster.seed, servers), strict=True))
        cluster.stack.launch_all(seeds, cluster.image, launched=lambda name: progress.node(name, "launched"))
        phase("launch")

        def wait_booted(node: Node) -> None:
            def reached(state: str) -> None:
                progress.node(node.name, state)
                movement.happened(f"{node.name} {state}")
                if state == "ssh":
                    phase("ssh")

            node.wait_booted(reached=reached, timeout=limit, stall=_STALL, moved=movement.count)

        pool.results([pool.submit(wait_booted, node) for node in cluster.nodes])
    phase("cloud-init")
    progress.say("waiting for the cluster to converge")
    convergence.wait_consul(cluster, timeout=limit, stall=_STALL, moved=movement.count, tell=progress.say)
    phase("consul")
    convergence.wait_converged(cluster, timeout=limit, stall=_STALL, moved=movement.count, tell=progress.say)
    phase("converged")
    progress.say(f"{cluster.name} has converged")


class Movement:
    """Counts distinct events on the nodes of a cluster, to detect a stalled boot; repetitions don't count.

    Nodes that share few processors take turns, so an event on any node counts for all.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: set[str] = set()
        self._mutex = threading.Lock()
        self._looked = 0.0

    def happened(self, event: str) -> None:
        """Count an event, unless it has been counted before."""
        with self._mutex:
            self._seen.add(event)

    def count(self) -> int:
        """The number of distinct events so far, each distinct console line included (digits removed)."""
        with self._mutex:
            if time.monotonic() - self._looked > 1:
                self._looked = time.monotonic()
                for node in self._cluster.nodes:
                    lines = node.console().splitlines()
                    self._seen.update(f"{node.name} {re.sub(r'[0-9]+', '', line)}" for line in lines)
            return len(self._seen)
