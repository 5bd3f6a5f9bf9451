"""From a spec to a running cluster: launch a new one, attach to a kept one, or open one for inspection."""

import time
from collections.abc import Callable
from pathlib import Path

from swarmer import diagnostics, image, interrupts
from swarmer.boot import boot
from swarmer.cluster import Cluster
from swarmer.errors import SwarmerError
from swarmer.ledger import Ledger, Ownership
from swarmer.progress import Progress, Silent
from swarmer.removal import collect_garbage, destroy, own
from swarmer.secrets.authority import Authority
from swarmer.spec import Spec
from swarmer.spec.rules import advice
from swarmer.stacks import stack_class, stack_of
from swarmer.state import ClusterHome


class OwnedCluster:
    """A cluster that this process owns; no other process can launch, attach to or remove it meanwhile."""

    def __init__(self, cluster: Cluster, ownership: Ownership) -> None:
        self.cluster = cluster
        self._ownership = ownership

    def keep(self) -> None:
        """Leave the cluster running, for `attach`, `swarmer ssh` and the like.

        A cluster that failed to relaunch has been removed already.
        """
        try:
            with interrupts.shielded():  # the cluster is kept or not, nothing between
                self.cluster.close()
                if self.cluster.home.ledger.exists():
                    self.cluster.ledger.set_kept(True)
        finally:
            self._ownership.release()

    def down(self) -> None:
        """Remove everything that the cluster owns."""
        start = time.monotonic()
        try:
            self.cluster.close()
            destroy(self.cluster.stack)
        finally:
            self._ownership.release()
        self.cluster.phases["teardown"] = time.monotonic() - start

    def relaunch(self, progress: Progress, runs: Path) -> None:
        """Replace the cluster by a new one of the same spec; the `Cluster` object stays the same."""
        kept = self.cluster.ledger.kept
        destroy(self.cluster.stack)
        self.cluster.replace_with(_launch(self.cluster.spec, self.cluster.home, progress, runs))
        self.cluster.ledger.set_kept(kept)


def provide(
    spec: Spec,
    progress: Progress,
    *,
    reuse: bool,
    runs: Path = Path("runs"),
    began: Callable[[Cluster], None] = lambda _: None,
) -> OwnedCluster:
    """Remove the leftovers of dead runs, then attach to or launch a healthy cluster.

    Args:
        reuse: attach to the kept cluster of this spec, if it exists.
        runs: the folder for node logs, if the cluster does not come up.
        began: called with the cluster before any of its resources are created.

    Raises:
        SwarmerError, PromiseBroken: as `attach` and `launch` do.
    """
    for collected in collect_garbage():
        progress.say(str(collected))
    if reuse and (owned := attach(spec)):
        progress.say(f"attached to the kept cluster {spec.name}")
        began(owned.cluster)
        return owned
    for sentence in advice(spec.servers):
        progress.say(sentence)
    return launch(spec, progress, runs=runs, began=began)


def launch(
    spec: Spec,
    progress: Progress | None = None,
    *,
    runs: Path = Path("runs"),
    began: Callable[[Cluster], None] = lambda _: None,
) -> OwnedCluster:
    """Boot a cluster and wait until it has converged. On any error, everything is removed again.

    Args:
        runs: the folder for node logs, if the cluster does not come up.
        began: called with the cluster before any of its resources are created.

    Raises:
        SwarmerError: the cluster is already running, or this machine can't run it.
        PromiseBroken: the nodes didn't converge.
    """
    home = ClusterHome(spec.stack, spec.dc)
    ownership = own(home)
    try:
        if home.ledger.exists():
            ledger = Ledger.load(home)
            if ledger.kept:
                raise SwarmerError(
                    f"cluster {home.name} is already running (kept by an earlier --keep-cluster)",
                    hint=f"reuse it with --keep-cluster, or remove it: `swarmer down {home.name}`",
                )
            destroy(stack_of(ledger))
        return OwnedCluster(_launch(spec, home, progress or Silent(), runs, began), ownership)
    except BaseException:
        ownership.release()
        raise


def attach(spec: Spec) -> OwnedCluster | None:
    """The kept cluster of a spec if it is healthy; None if no cluster is kept.

    Raises:
        SwarmerError: the kept cluster has a different spec or image, or isn't healthy.
    """
    home = ClusterHome(spec.stack, spec.dc)
    if not home.ledger.exists():
        return None
    ownership = own(home)
    try:
        ledger = Ledger.load(home)
        if not ledger.kept:
            destroy(stack_of(ledger))
            ownership.release()
            return None
        again = f"remove it, then start a new one: `swarmer down {home.name}`"
        if ledger.spec.digest != spec.digest:
            raise SwarmerError(f"kept cluster {home.name} was created from a different servers.yml", hint=again)
        current = image.find(stack_class(spec.stack).image_kind)
        if current is None or current.id != ledger.image:
            raise SwarmerError(f"kept cluster {home.name} was not built from the current image recipe", hint=again)
        if ledger.broken:
            raise SwarmerError(f"kept cluster {home.name} is broken: {ledger.broken}", hint=again)
        cluster = Cluster(ledger, image=current)
        Authority.load(home.folder, spec)
        cluster.ssh.write_config(cluster.endpoints)
        try:
            cluster.wait_converged(timeout=5)
        except AssertionError as error:
            raise SwarmerError(f"kept cluster {home.name} is not healthy: {error}", hint=again) from error
        return OwnedCluster(cluster, ownership)
    except BaseException:
        ownership.release()
        raise


def open_kept(home: ClusterHome) -> Cluster:
    """A cluster as recorded in its ledger, healthy or not, for inspection and login.

    Raises:
        SwarmerError: the cluster doesn't exist.
    """
    ledger = Ledger.load(home)
    current = image.find(stack_class(home.stack).image_kind)
    cluster = Cluster(ledger, image=current if current and current.id == ledger.image else None)
    cluster.ssh.make_sockets_folder()
    return cluster


def plan(spec: Spec, home: ClusterHome, progress: Progress) -> Cluster:
    """Check that this machine can run the cluster, build the image, and return the cluster; it has no resources yet."""
    stack = stack_class(spec.stack)
    stack.preflight(spec, home)
    node_image = stack.build_image(progress.say)
    layers = [root.parent.name for root in node_image.roots]
    return Cluster(Ledger(home, spec=spec, image=node_image.id, layers=layers), image=node_image)


def _launch(
    spec: Spec,
    home: ClusterHome,
    progress: Progress,
    runs: Path,
    began: Callable[[Cluster], None] = lambda _: None,
) -> Cluster:
    cluster = plan(spec, home, progress)
    began(cluster)
    try:
        boot(cluster, progress)
    except BaseException as error:
        _give_up(cluster, error, progress, runs / "boot")
        raise
    return cluster


def _give_up(cluster: Cluster, error: BaseException, progress: Progress, folder: Path) -> None:
    try:
        if isinstance(error, AssertionError | SwarmerError):
            progress.say("collecting node logs")
            error.add_note(_collect_logs(cluster, folder))
        progress.say(f"removing {cluster.name}")
    finally:
        # Even if writing progress fails: in `swarmer up | tee`, Ctrl-C ends `tee` as well.
        destroy(cluster.stack)


def _collect_logs(cluster: Cluster, folder: Path) -> str:
    """Save the nodes' logs; a sentence that names the folder, or the error."""
    try:
        return f"node logs: {diagnostics.collect(cluster, folder)}"
    except (SwarmerError, OSError) as error:
        return f"node logs can't be collected: {error}"
