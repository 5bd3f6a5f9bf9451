"""The on-disk record of every resource that a cluster owns, written *before* the resource is created.

Whenever a process dies, the ledger lists a superset of what exists. Removal is idempotent, so the leftovers of a dead
run are removed by walking its ledger backwards.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from swarmer.errors import SwarmerError
from swarmer.files import write_private
from swarmer.spec import Spec
from swarmer.state import ClusterHome
from swarmer.wait import GaveUp, until

#: Seconds to wait for the lock. `holder` takes it for a moment without owning the cluster.
_LOCK_TIMEOUT = 0.1


@dataclass(frozen=True)
class Resource:
    """One thing that a cluster owns on a host.

    Attributes:
        kind: its type, for which a remover exists: `path`, `network`, `domain`, …
        id: its name, unique within its kind.
    """

    kind: str
    id: str


class Ledger:
    """What one cluster owns. Every change is on disk before the method returns.

    A ledger is `owned` while a process holds its lock; the kernel releases the lock when the process ends for any
    reason. It is `kept` if the user asked for the cluster to outlive the process.

    Attributes:
        image: the id of the image that the nodes run.
        layers: the names of its layers in the image store, lowest first.
    """

    def __init__(
        self, home: ClusterHome, *, spec: Spec, image: str, layers: Sequence[str] = (), kept: bool = False
    ) -> None:
        self.home = home
        self.spec = spec
        self.image = image
        self.layers = list(layers)
        self.kept = kept
        self.broken = ""
        self.resources: list[Resource] = []
        self._mutex = threading.Lock()

    @classmethod
    def load(cls, home: ClusterHome) -> "Ledger":
        """Read the ledger of a cluster.

        Raises:
            SwarmerError: the ledger doesn't exist, or can't be read.
        """
        try:
            data: dict[str, Any] = json.loads(home.ledger.read_text())
            ledger = cls(home, spec=Spec.model_validate(data["spec"]), image=data["image"], kept=data["kept"])
            ledger.layers = data.get("layers", [])
            ledger.broken = data["broken"]
            ledger.resources = [Resource(**row) for row in data["resources"]]
        except FileNotFoundError:
            raise SwarmerError(
                f"there is no cluster {home.name}", hint="`swarmer ls` shows the clusters of this machine"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise SwarmerError(
                f"the ledger {home.ledger} can't be read: {error}",
                hint="it was written by an incompatible swarmer version, or edited; "
                "delete the resources that it lists, then the file",
            ) from error
        return ledger

    def record(self, kind: str, id: str) -> Resource:
        """Record a resource that is about to be created."""
        resource = Resource(kind, id)
        with self._mutex:
            if resource not in self.resources:
                self.resources.append(resource)
                self._write()
        return resource

    def remove_all(self, remove: Callable[[Resource], None], *, independent: Collection[str] = frozenset()) -> None:
        """Remove all resources, newest first, and delete each from the ledger; then remove the ledger itself.

        If `remove` raises, the ledger keeps that resource and all older ones, on which it may depend; the next call
        continues from there.

        Args:
            remove: removes one resource; a resource that doesn't exist is not an error.
            independent: kinds that nothing else depends on. If one of them can't be removed, it is skipped, and the
                first error is raised after everything else has been removed.
        """
        skipped: SwarmerError | None = None
        for resource in reversed(list(self.resources)):
            try:
                remove(resource)
            except SwarmerError as error:
                if resource.kind not in independent:
                    raise
                skipped = skipped or error
                continue
            self.forget(resource)
        if skipped:
            raise skipped
        self.home.ledger.unlink(missing_ok=True)

    def forget(self, resource: Resource) -> None:
        """Delete the entry of a resource that no longer exists."""
        with self._mutex:
            self.resources.remove(resource)
            self._write()

    def set_kept(self, kept: bool) -> None:
        """Set whether the cluster outlives its process."""
        with self._mutex:
            self.kept = kept
            self._write()

    def mark_broken(self, why: str) -> None:
        """Record that the cluster no longer keeps its promises, and what broke it."""
        with self._mutex:
            self.broken = why
            self._write()

    def save(self) -> None:
        """Write the ledger."""
        with self._mutex:
            self._write()

    def _write(self) -> None:
        document = {
            "cluster": self.home.name,
            "spec": self.spec.model_dump(mode="json"),
            "image": self.image,
            "layers": self.layers,
            "kept": self.kept,
            "broken": self.broken,
            "resources": [asdict(resource) for resource in self.resources],
        }
        self.home.make()
        write_private(self.home.ledger, json.dumps(document, indent=1))


class Ownership:
    """The lock that a process holds while it owns the cluster."""

    def __init__(self, home: ClusterHome) -> None:
        self.home = home
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Take the lock; False if another process holds it."""
        while (file := self._lock()) and not self._is_current(file):
            file.close()  # the folder was removed while this process waited for the lock
        self._file = file
        if not file:
            return False
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return True

    def _lock(self) -> IO[str] | None:
        self.home.make()
        file = self.home.owner_lock.open("a+")
        try:
            until(
                f"the lock of {self.home.name}",
                lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
                timeout=_LOCK_TIMEOUT,
                interval=0.01,
                retry_on=(BlockingIOError,),
            )
        except GaveUp:
            file.close()
            return None
        return file

    def _is_current(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.home.owner_lock.stat())
        except FileNotFoundError:
            return False

    def holder(self) -> int | None:
        """The id of the process that holds the lock; None if it is free, 0 if its holder hasn't written its id yet."""
        try:
            with self.home.owner_lock.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read() or 0)
        except FileNotFoundError:
            pass
        return None

    def owner(self) -> str:
        """The process id of the owner, for a message."""
        try:
            return self.home.owner_lock.read_text() or "unknown"
        except FileNotFoundError:
            return "unknown"

    def release(self) -> None:
        """Release the lock."""
        if self._file:
            self._file.close()
            self._file = None
