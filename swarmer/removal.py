"""Removing clusters: everything that a cluster owns is a resource in its ledger, and each kind has a remover."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarmer import interrupts
from swarmer.errors import SwarmerError
from swarmer.host import dns as host_dns
from swarmer.host import trust as host_trust
from swarmer.ledger import Ledger, Ownership, Resource
from swarmer.ssh import end_connections
from swarmer.stacks import Stack, stack_of
from swarmer.state import ClusterHome, cluster_homes

#: Kinds that nothing else depends on: if one of them can't be removed, the others are removed all the same.
_INDEPENDENT: Final = frozenset({"host-dns", "host-trust", "connections"})


def destroy(stack: Stack) -> None:
    """Remove everything that a cluster owns, newest first. Can be repeated after any interruption.

    A signal that arrives meanwhile has its effect afterwards; only a second one ends it earlier.

    Raises:
        SwarmerError: a resource can't be removed. It stays in the ledger, with everything it depends on.
    """
    with interrupts.shielded():
        _destroy(stack)


def _destroy(stack: Stack) -> None:
    ledger, home = stack.ledger, stack.home
    removers: Mapping[str, Callable[[Resource], None]] = {
        "host-dns": lambda _: _discard(host_dns.remove(home)),
        "host-trust": lambda _: _discard(host_trust.remove(home)),
        "connections": lambda resource: end_connections(Path(resource.id)),
        "path": lambda resource: _remove_path(Path(resource.id)),
    }
    # These are created by commands other than the cluster's owner, so the ledger doesn't list them yet.
    if home in host_dns.resolved():
        ledger.record("host-dns", home.name)
    if home in host_trust.trusted():
        ledger.record("host-trust", home.name)
    with suppress(SwarmerError):  # the remover of a node that can't be switched off reports the error
        stack.kill_all()
    ledger.remove_all(lambda resource: removers.get(resource.kind, stack.remove)(resource), independent=_INDEPENDENT)


def down(home: ClusterHome, *, forget: bool = False) -> None:
    """Remove a cluster, kept or not.

    Args:
        forget: also remove its folder, with its CA and client certificates; the cluster need not be running then.

    Raises:
        SwarmerError: the cluster doesn't exist, another process owns it, or a resource can't be removed.
    """
    if not (forget and home.folder.exists()):
        Ledger.load(home)  # raises if the cluster doesn't exist, before a lock file is created
    with owned(home):
        if not forget or home.ledger.exists():
            destroy(stack_of(Ledger.load(home)))
        if forget:
            host_dns.remove(home)  # this host may be set up for a cluster that isn't running
            host_trust.remove(home)
            home.remove()


@contextmanager
def owned(home: ClusterHome) -> Iterator[None]:
    """Make this process the owner of the cluster for the duration of the block.

    Raises:
        SwarmerError: another living process owns it.
    """
    ownership = own(home)
    try:
        yield
    finally:
        ownership.release()


def own(home: ClusterHome) -> Ownership:
    """Make this process the owner of the cluster.

    Raises:
        SwarmerError: another living process owns it.
    """
    ownership = Ownership(home)
    if not ownership.acquire():
        raise SwarmerError(
            f"cluster {home.name} is in use by process {ownership.owner()}",
            hint="wait for it to end, or set a different dc and admin_network in servers.yml",
        )
    return ownership


@dataclass(frozen=True)
class RemovalResult:
    """The outcome of removing the leftovers of a dead run.

    Attributes:
        cluster: `STACK:DC`.
        problem: why some of them couldn't be removed; None if everything was removed.
    """

    cluster: str
    problem: Exception | None = None

    def __str__(self) -> str:
        if self.problem:
            return f"the leftovers of {self.cluster} can't be removed: {self.problem}"
        return f"removed the leftovers of {self.cluster}"


def collect_garbage() -> list[RemovalResult]:
    """Remove every cluster whose owner is dead and that isn't marked as kept.

    If one can't be removed, the others are removed all the same.
    """
    results = []
    for home in list(cluster_homes()):
        ownership = Ownership(home)
        if not ownership.acquire():
            continue
        try:
            # Another process may have removed the cluster since it was listed.
            if home.ledger.exists() and not (ledger := Ledger.load(home)).kept:
                destroy(stack_of(ledger))
                results.append(RemovalResult(home.name))
        except Exception as error:
            results.append(RemovalResult(home.name, error))
        finally:
            ownership.release()
    return results


def _remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(_: object) -> None:
    """Ignore the result of a remover."""
