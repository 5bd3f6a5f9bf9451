"""From a spec to a running cluster: launching one, attaching to one that was kept, opening one to look at it."""

import time
from collections.abc import Callable
from pathlib import Path

from swarmer import diagnostics, image
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
    """A cluster that this process runs; nobody else may launch, attach to or collect it meanwhile."""

    def __init__(self, cluster: Cluster, ownership: Ownership) -> None:
        self.cluster = cluster
        self._ownership = ownership

    def keep(self) -> None:
        """Leave the cluster running, for `attach`, `swarmer ssh` and the like; one that didn't boot again is gone."""
        try:
            self.cluster.close()
            if self.cluster.home.ledger.exists():
                self.cluster.ledger.set_kept(True)
        finally:
            self._ownership.release()

    def down(self) -> None:
        """Remove all that the cluster owns."""
        start = time.monotonic()
        try:
            self.cluster.close()
            destroy(self.cluster.stack)
        finally:
            self._ownership.release()
        self.cluster.phases["teardown"] = time.monotonic() - start

    def relaunch(self, progress: Progress, runs: Path) -> None:
        """A fresh cluster of the same spec behind the same object."""
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
    """A healthy cluster for a person or a test run, after the leftovers of dead runs are removed.

    Args:
        reuse: take the kept cluster of this spec, if there is one.
        runs: the folder for node logs, if the cluster does not come up.
        began: called with the cluster before anything of it is made.

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
    """Boot a cluster and wait until it has converged. Whatever goes wrong, nothing is left behind.

    Args:
        runs: the folder for node logs, if the cluster does not come up.
        began: called with the cluster before anything of it is made.

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
            destroy(stack_of(ledger))
        return OwnedCluster(_launch(spec, home, progress or Silent(), runs, began), ownership)
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
            destroy(stack_of(ledger))
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
        Authority.load(home.folder, spec)
        cluster.ssh.write_config(cluster.endpoints)
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


def plan(spec: Spec, home: ClusterHome, progress: Progress) -> Cluster:
    """A cluster of which nothing is made yet but its image, on a machine that can run it."""
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
            error.add_note(_what_they_said(cluster, folder))
        progress.say(f"removing what was made of {cluster.name}")
    finally:
        # Also when nobody reads any more what is said: Ctrl-C ends a `| tee` too.
        destroy(cluster.stack)


def _what_they_said(cluster: Cluster, folder: Path) -> str:
    try:
        return f"node logs: {diagnostics.collect(cluster, folder)}"
    except (SwarmerError, OSError) as error:
        return f"node logs can't be collected: {error}"
