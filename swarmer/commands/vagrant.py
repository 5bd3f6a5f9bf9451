"""Clusters whose machines a person makes by `vagrant up` and unmakes by `vagrant destroy`; swarmer prepares them."""

from concurrent.futures import ThreadPoolExecutor

from swarmer import lifecycle
from swarmer.boot import prepare as prepare_cluster
from swarmer.cluster import Cluster
from swarmer.errors import SwarmerError
from swarmer.ledger import Ledger
from swarmer.progress import Progress
from swarmer.removal import destroy, owned
from swarmer.spec import Spec
from swarmer.stacks import stack_of
from swarmer.stacks.vagrant.acceleration import BY_HARDWARE
from swarmer.stacks.vagrant.stack import VagrantStack
from swarmer.state import ClusterHome


def plan(spec: Spec) -> str:
    """What the Vagrantfile is told, as JSON: of the cluster as it was prepared, or else as it would be.

    Raises:
        SwarmerError: the spec isn't one for Vagrant.
    """
    home = _home(spec)
    stack = VagrantStack(Ledger(home, spec=spec, image=""))
    if home.ledger.exists() and stack.plan_file.exists():
        return stack.plan_file.read_text()
    return stack.plan(BY_HARDWARE, stack.slowness).json()


def prepare(spec: Spec, progress: Progress) -> str:
    """Make all that `vagrant up` needs to make the machines that aren't there yet; returns the plan, as JSON.

    The cluster is kept, as nobody runs it: `lifecycle.down` removes it with its machines.

    Raises:
        SwarmerError: this machine can't run it, a living process runs it, or it was made from another spec.
    """
    home = _home(spec)
    with owned(home):
        cluster = _kept(spec, home) or _new(spec, home, progress)
        stack = cluster.stack
        assert isinstance(stack, VagrantStack)
        missing = [node for node in cluster.nodes if not stack.made(node.name)]
        if missing:
            progress.say(f"making the seed data of {', '.join(node.name for node in missing)}")
            with ThreadPoolExecutor() as pool:
                seeds = list(pool.map(cluster.seed, [node.server for node in missing]))
            stack.make_disks(list(zip([node.server for node in missing], seeds, strict=True)))
        return stack.plan_file.read_text()


def _home(spec: Spec) -> ClusterHome:
    if spec.stack != VagrantStack.name:
        raise SwarmerError(f"Vagrant makes no nodes of the stack {spec.stack}", hint="add --stack vagrant")
    return ClusterHome(spec.stack, spec.dc)


def _kept(spec: Spec, home: ClusterHome) -> Cluster | None:
    """The cluster that was prepared before; None when there is none, or only what a dead run left."""
    if not home.ledger.exists():
        return None
    ledger = Ledger.load(home)
    if not ledger.kept:
        destroy(stack_of(ledger))
        return None
    if ledger.spec.digest != spec.digest:
        raise SwarmerError(
            f"the cluster {home.name} was made from another servers.yml",
            hint=f"bring it down and begin anew: `vagrant destroy` or `swarmer down {home.name}`",
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
