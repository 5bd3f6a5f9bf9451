"""Clusters whose machines are created by `vagrant up` and removed by `vagrant destroy`; swarmer prepares them."""

import os

from swarmer import lifecycle
from swarmer.boot import prepare as prepare_cluster
from swarmer.cluster import Cluster
from swarmer.errors import SwarmerError
from swarmer.ledger import Ledger
from swarmer.pool import Pool
from swarmer.progress import Progress
from swarmer.removal import destroy, owned
from swarmer.spec import Spec
from swarmer.stacks import stack_of
from swarmer.stacks.vagrant.acceleration import BY_HARDWARE
from swarmer.stacks.vagrant.stack import VagrantStack
from swarmer.state import ClusterHome


def plan(spec: Spec) -> str:
    """The plan for the Vagrantfile as JSON: that of the prepared cluster, or else a preview.

    Raises:
        SwarmerError: the spec isn't for the vagrant stack.
    """
    home = _home(spec)
    stack = VagrantStack(Ledger(home, spec=spec, image=""))
    if home.ledger.exists() and stack.plan_file.exists():
        return stack.plan_file.read_text()
    return stack.plan(BY_HARDWARE, stack.slowness).json()


def prepare(spec: Spec, progress: Progress) -> str:
    """Create everything that `vagrant up` needs for the missing machines; returns the plan as JSON.

    The cluster is kept, because no process owns it. `lifecycle.down` removes it with its machines.

    Raises:
        SwarmerError: this machine can't run it, a live process owns it, or it was created from another spec.
    """
    home = _home(spec)
    with owned(home):
        cluster = _kept(spec, home) or _new(spec, home, progress)
        stack = cluster.stack
        assert isinstance(stack, VagrantStack)
        missing = [node for node in cluster.nodes if not stack.made(node.name)]
        if missing:
            cluster.add_missing_tokens()
            progress.say(f"making the seed data of {', '.join(node.name for node in missing)}")
            with Pool(os.cpu_count() or 1) as pool:
                seeds = pool.map(cluster.seed, [node.server for node in missing])
            stack.make_disks(list(zip([node.server for node in missing], seeds, strict=True)))
        return stack.plan_file.read_text()


def _home(spec: Spec) -> ClusterHome:
    if spec.stack != VagrantStack.name:
        raise SwarmerError(f"the stack {spec.stack} does not use Vagrant", hint="add --stack vagrant")
    return ClusterHome(spec.stack, spec.dc)


def _kept(spec: Spec, home: ClusterHome) -> Cluster | None:
    """The cluster that was prepared before; None if there is none. What a dead run left is removed."""
    if not home.ledger.exists():
        return None
    ledger = Ledger.load(home)
    if not ledger.kept:
        destroy(stack_of(ledger))
        return None
    if ledger.spec.digest != spec.digest:
        raise SwarmerError(
            f"the cluster {home.name} was created from another servers.yml",
            hint=f"remove it first: `vagrant destroy` or `swarmer down {home.name}`",
        )
    return lifecycle.open_kept(home)


def _new(spec: Spec, home: ClusterHome, progress: Progress) -> Cluster:
    cluster = lifecycle.plan(spec, home, progress)
    try:
        prepare_cluster(cluster, progress)
        cluster.ledger.set_kept(True)
    except BaseException:
        destroy(cluster.stack)
        raise
    return cluster
