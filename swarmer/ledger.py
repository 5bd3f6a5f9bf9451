"""The on-disk record of every resource a cluster owns, written *before* the resource is made.

Whatever dies, and whenever, what the ledger lists is a superset of what exists. Removing is idempotent,
so a dead run is cleaned by walking its ledger backwards.
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

#: Seconds to wait for a lock that somebody only looks at.
_GLANCE = 0.1


@dataclass(frozen=True)
class Resource:
    """One thing that a cluster owns on a host.

    Attributes:
        kind: what it is, a word that the stack knows how to remove: `netns`, `route`, `folder`, …
        id: its name, in the terms of its kind.
    """

    kind: str
    id: str


class Ledger:
    """What one cluster owns. Every change is on disk before the method returns.

    A ledger is `owned` while a process holds its lock, which the kernel lets go when that process ends,
    however it ends. It is `kept` when a person asked for the cluster to outlive the process.

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
            SwarmerError: there is none, or it can't be read.
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
                hint="it was written by another version of swarmer, or by hand; remove what it lists, then the file",
            ) from error
        return ledger

    def record(self, kind: str, id: str) -> Resource:
        """Record a resource that is about to be made."""
        resource = Resource(kind, id)
        with self._mutex:
            if resource not in self.resources:
                self.resources.append(resource)
                self._write()
        return resource

    def remove_all(self, remove: Callable[[Resource], None], *, independent: Collection[str] = frozenset()) -> None:
        """Remove everything, newest first, forgetting each once it is gone; then the ledger itself.

        When `remove` raises, the ledger still holds that resource and all older ones, on which it may depend: the
        next try goes on from there.

        Args:
            remove: removes one resource; one that isn't there is no error.
            independent: kinds that nothing else depends on. Those that can't be removed are passed over, and the
                first error is raised once everything else is gone.
        """
        passed_over: SwarmerError | None = None
        for resource in reversed(list(self.resources)):
            try:
                remove(resource)
            except SwarmerError as error:
                if resource.kind not in independent:
                    raise
                passed_over = passed_over or error
                continue
            self.forget(resource)
        if passed_over:
            raise passed_over
        self.home.ledger.unlink(missing_ok=True)

    def forget(self, resource: Resource) -> None:
        """Strike a resource that is gone."""
        with self._mutex:
            self.resources.remove(resource)
            self._write()

    def set_kept(self, kept: bool) -> None:
        """Let the cluster outlive its process, or not."""
        with self._mutex:
            self.kept = kept
            self._write()

    def mark_broken(self, why: str) -> None:
        """Record that the cluster doesn't keep its promises any more, and who broke it."""
        with self._mutex:
            self.broken = why
            self._write()

    def save(self) -> None:
        """Write the ledger as it stands."""
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
    """The lock that says: a living process runs this cluster."""

    def __init__(self, home: ClusterHome) -> None:
        self.home = home
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Take the lock; False when another living process has it."""
        while (file := self._lock()) and not self._is_current(file):
            file.close()  # the folder was removed while this process waited
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
                timeout=_GLANCE,
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
        """The process id of the living process that has the lock, None when nobody has; 0 if it isn't told yet."""
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
        """Let the lock go."""
        if self._file:
            self._file.close()
            self._file = None
