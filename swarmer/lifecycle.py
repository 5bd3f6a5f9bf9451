"""From a spec to a running cluster, and from a cluster to nothing."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from swarmer import convergence, diagnostics, image
from swarmer.clients import consul_api
from swarmer.cluster import CONVERGE_TIMEOUT, Cluster
from swarmer.cluster_node import Node
from swarmer.errors import SwarmerError
from swarmer.host import dns as host_dns
from swarmer.host import trust as host_trust
from swarmer.ledger import Ledger, Ownership, Resource
from swarmer.progress import Progress, Silent
from swarmer.spec import Spec
from swarmer.spec.rules import advice
from swarmer.ssh import end_connections
from swarmer.stacks import stack_class
from swarmer.state import ClusterHome, cluster_homes


class OwnedCluster:
    """A cluster that this process runs; nobody else may launch, attach to or collect it meanwhile."""

    def __init__(self, cluster: Cluster, ownership: Ownership) -> None:
        self.cluster = cluster
        self._ownership = ownership

    def keep(self) -> None:
        """Leave the cluster running, for `attach`, `swarmer ssh` and the like; one that didn't boot again is gone."""
        if self.cluster.home.ledger.exists():
            self.cluster.ledger.set_kept(True)
        self._ownership.release()

    def down(self) -> None:
        """Remove all that the cluster owns."""
        start = time.monotonic()
        destroy(self.cluster.ledger)
        self.cluster.phases["teardown"] = time.monotonic() - start
        self._ownership.release()

    def relaunch(self, progress: Progress, runs: Path) -> None:
        """A fresh cluster of the same spec behind the same object."""
        kept = self.cluster.ledger.kept
        destroy(self.cluster.ledger)
        self.cluster.replace_with(_launch(self.cluster.spec, self.cluster.home, progress, runs))
        self.cluster.ledger.set_kept(kept)


def provide(spec: Spec, progress: Progress, *, reuse: bool, runs: Path = Path("runs")) -> OwnedCluster:
    """A healthy cluster for a person or a test run, after the leftovers of dead runs are removed.

    Args:
        reuse: take the kept cluster of this spec, if there is one.
        runs: where to put what the nodes said, should they not come up.

    Raises:
        SwarmerError, PromiseBroken: as `attach` and `launch` do.
    """
    for collected in collect_garbage():
        progress.say(str(collected))
    if reuse and (owned := attach(spec)):
        progress.say(f"attached to the kept cluster {spec.name}")
        return owned
    for sentence in advice(spec.servers):
        progress.say(sentence)
    return launch(spec, progress, runs=runs)


def launch(spec: Spec, progress: Progress | None = None, *, runs: Path = Path("runs")) -> OwnedCluster:
    """Boot a cluster and wait until it has converged. Whatever goes wrong, nothing is left behind.

    Args:
        runs: where to put what the nodes said, should they not come up.

    Raises:
        SwarmerError: the cluster runs already, or this machine can't run it.
        PromiseBroken: the nodes didn't converge.
    """
    home = ClusterHome(spec.stack, spec.dc)
    ownership = own(home)
    try:
        if home.ledger.exists():
            ledger = Ledger.load(home)
            if ledger.kept:
                raise SwarmerError(
                    f"the cluster {home.name} is running already, and was to be kept",
                    hint=f"use it with --keep-cluster, or bring it down: `swarmer down {home.name}`",
                )
            destroy(ledger)
        return OwnedCluster(_launch(spec, home, progress or Silent(), runs), ownership)
    except BaseException:
        ownership.release()
        raise


def attach(spec: Spec) -> OwnedCluster | None:
    """The kept cluster of a spec, when there is one and it is healthy; None when there is none.

    Raises:
        SwarmerError: there is one, but of another spec or image, or it isn't healthy.
    """
    home = ClusterHome(spec.stack, spec.dc)
    if not home.ledger.exists():
        return None
    ownership = own(home)
    try:
        ledger = Ledger.load(home)
        if not ledger.kept:
            destroy(ledger)
            ownership.release()
            return None
        again = f"bring it down and begin anew: `swarmer down {home.name}`"
        if ledger.spec.digest != spec.digest:
            raise SwarmerError(f"the kept cluster {home.name} was made from another servers.yml", hint=again)
        current = image.find(stack_class(spec.stack).image_kind)
        if current is None or current.id != ledger.image:
            raise SwarmerError(f"the kept cluster {home.name} runs another image than today's recipe", hint=again)
        if ledger.broken:
            raise SwarmerError(f"the kept cluster {home.name} is broken: {ledger.broken}", hint=again)
        cluster = Cluster(ledger, image=current)
        cluster.ssh.prepare(spec)
        try:
            cluster.wait_converged(timeout=5)
        except AssertionError as error:
            raise SwarmerError(f"the kept cluster {home.name} is not healthy: {error}", hint=again) from error
        return OwnedCluster(cluster, ownership)
    except BaseException:
        ownership.release()
        raise


def open_kept(home: ClusterHome) -> Cluster:
    """A cluster as its ledger tells it, healthy or not, to look at and to log in.

    Raises:
        SwarmerError: there is no such cluster.
    """
    ledger = Ledger.load(home)
    current = image.find(stack_class(home.stack).image_kind)
    cluster = Cluster(ledger, image=current if current and current.id == ledger.image else None)
    cluster.ssh.make_sockets_folder()
    return cluster


def down(home: ClusterHome) -> None:
    """Remove a cluster, kept or not.

    Raises:
        SwarmerError: there is none, or a living process runs it.
    """
    Ledger.load(home)  # raises where there is none, before anything is made
    ownership = own(home)
    try:
        destroy(Ledger.load(home))
    finally:
        ownership.release()


def destroy(ledger: Ledger) -> None:
    """Remove everything that a ledger lists, newest first. Can be repeated after any interruption."""
    stack = stack_class(ledger.spec.stack)(ledger)
    stack.kill_all()
    host_dns.remove(ledger.home)
    host_trust.remove(ledger.home)

    def remove(resource: Resource) -> None:
        match resource.kind:
            case "connections":
                end_connections(Path(resource.id))
            case "path":
                path = Path(resource.id)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            case _:
                stack.remove(resource)

    ledger.remove_all(remove)


@dataclass(frozen=True)
class RemovalResult:
    """What a dead run left of a cluster, and what became of it.

    Attributes:
        cluster: `STACK:DC`.
        problem: why not all of it could be removed; None when it was.
    """

    cluster: str
    problem: Exception | None = None

    def __str__(self) -> str:
        if self.problem:
            return f"what a dead run left of {self.cluster} can't be removed: {self.problem}"
        return f"removed what a dead run left of {self.cluster}"


def collect_garbage() -> list[RemovalResult]:
    """Remove every cluster whose process is dead and that nobody asked to keep.

    One that can't be removed is no reason to leave the others.
    """
    collected = []
    for home in list(cluster_homes()):
        ownership = Ownership(home)
        if not ownership.acquire():
            continue
        try:
            # Somebody else may have removed it since it was listed.
            if home.ledger.exists() and not (ledger := Ledger.load(home)).kept:
                destroy(ledger)
                collected.append(RemovalResult(home.name))
        except Exception as error:
            collected.append(RemovalResult(home.name, error))
        finally:
            ownership.release()
    return collected


def own(home: ClusterHome) -> Ownership:
    """Make this process the one that runs the cluster.

    Raises:
        SwarmerError: another living process runs it.
    """
    ownership = Ownership(home)
    if not ownership.acquire():
        raise SwarmerError(
            f"the cluster {home.name} is run by process {ownership.owner()}",
            hint="wait for its end, or give this one another dc and admin_network in servers.yml",
        )
    return ownership


def plan(spec: Spec, home: ClusterHome, progress: Progress) -> Cluster:
    """A cluster of which nothing is made yet but its image, on a machine that can run it."""
    stack = stack_class(spec.stack)(Ledger(home, spec=spec, image=""))
    stack.preflight(spec)
    node_image = stack.build_image(progress.say)
    layers = [root.parent.name for root in node_image.roots]
    return Cluster(Ledger(home, spec=spec, image=node_image.id, layers=layers), image=node_image)


def _launch(spec: Spec, home: ClusterHome, progress: Progress, runs: Path) -> Cluster:
    cluster = plan(spec, home, progress)
    try:
        _boot(cluster, progress)
    except BaseException as error:
        _give_up(cluster, error, progress, runs / "boot")
        raise
    return cluster


def _boot(cluster: Cluster, progress: Progress) -> None:
    start = time.monotonic()

    def phase(name: str) -> None:
        cluster.phases[name] = round(time.monotonic() - start, 3)

    prepare(cluster, progress)
    servers = cluster.spec.servers
    with ThreadPoolExecutor(len(servers)) as pool:
        seeds = list(zip(servers, pool.map(cluster.seed, servers), strict=True))
        cluster.stack.launch_all(seeds, cluster.image, launched=lambda name: progress.node(name, "launched"))
        phase("launch")
        try:
            _wait_booted(cluster, pool, progress, phase)
        except KeyboardInterrupt:
            cluster.stack.kill_all()  # else the pool would wait for nodes that still boot
            raise
    phase("cloud-init")
    progress.say("waiting for the cluster to converge")
    convergence.wait_consul(cluster, timeout=CONVERGE_TIMEOUT, tell=progress.say)
    phase("consul")
    convergence.wait_converged(cluster, timeout=CONVERGE_TIMEOUT, tell=progress.say)
    phase("converged")
    progress.say(f"{cluster.name} has converged")


def _give_up(cluster: Cluster, error: BaseException, progress: Progress, folder: Path) -> None:
    try:
        if isinstance(error, AssertionError | SwarmerError):
            progress.say("collecting what the nodes said")
            error.add_note(_what_they_said(cluster, folder))
        progress.say(f"removing what was made of {cluster.name}")
    finally:
        # Also when nobody reads any more what is said: Ctrl-C ends a `| tee` too.
        destroy(cluster.ledger)


def _what_they_said(cluster: Cluster, folder: Path) -> str:
    try:
        return f"what the nodes said: {diagnostics.collect(cluster, folder)}"
    except (SwarmerError, OSError) as error:
        return f"what the nodes said can't be collected: {error}"


def prepare(cluster: Cluster, progress: Progress) -> None:
    """Make what all nodes share: certificates, keys, their network."""
    home, spec, ledger = cluster.home, cluster.spec, cluster.ledger
    ledger.save()
    authority = cluster.authority
    if authority.client(home.folder).renewed:
        progress.say(f"the client certificates in {home.folder} were renewed")
    consul_api.write_trust(home, authority)
    ledger.record("path", str(home.credentials))
    ledger.record("path", str(home.ssh))
    cluster.notes = cluster.stack.prepare(spec)
    ledger.record("connections", str(home.control_sockets))
    cluster.ssh.prepare(spec)
    for note in cluster.notes:
        progress.say(note)


def _wait_booted(cluster: Cluster, pool: ThreadPoolExecutor, progress: Progress, phase: Callable[[str], None]) -> None:
    """Wait for all nodes side by side; the phase `ssh` ends when the last one lets us in."""

    def boot(node: Node) -> None:
        def reached(state: str) -> None:
            progress.node(node.name, state)
            if state == "ssh":
                phase("ssh")

        node.wait_booted(reached=reached)

    for wait in [pool.submit(boot, node) for node in cluster.nodes]:
        wait.result()
