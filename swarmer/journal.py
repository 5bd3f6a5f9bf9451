"""The journals of all nodes, written to files of this host while they happen: a dead node's last words are there."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from swarmer.cluster import Cluster
    from swarmer.cluster_node import Node


class JournalStreams:
    """One `journalctl --follow` per node, over the node's shared connection; follows a node through its boots."""

    def __init__(self, cluster: "Cluster", folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self._streams: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}

    def __enter__(self) -> "JournalStreams":
        self.folder.mkdir(parents=True, exist_ok=True)
        for node in self.cluster.nodes:
            self.follow(node)
        self.cluster.listeners.append(self.follow)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.listeners.remove(self.follow)
        for name in list(self._streams):
            self._end(name)

    def follow(self, node: "Node") -> None:
        """Write this boot's journal of a node from its beginning, behind what its earlier boots said."""
        self._end(node.name)
        file = self.file(node.name).open("ab")
        command = "journalctl --boot --follow --no-tail --quiet --output=short-iso-precise"
        process = subprocess.Popen(
            self.cluster.ssh.command(node.name, command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
        self._streams[node.name] = (process, file)

    def file(self, node: str) -> Path:
        """Where the journal of a node goes, over all its boots."""
        return self.folder / f"{node}.log"

    def files(self) -> Iterator[Path]:
        """The journals that were written so far."""
        yield from sorted(self.folder.glob("*.log"))

    def _end(self, name: str) -> None:
        if stream := self._streams.pop(name, None):
            process, file = stream
            process.kill()
            process.wait()
            file.close()
