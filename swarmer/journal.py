"""Copies the journals of all nodes to files on this host as they are written, so a dead node's last lines are kept."""

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from swarmer.cluster import Cluster
from swarmer.cluster_node import Node

#: The length of the longest private key, in characters; no more is held back to wait for its end.
_LONGEST_KEY: Final = 16_000


class JournalStreams:
    """One `journalctl --follow` per node, over the node's shared connection; a new one for each boot of the node.

    Secrets of the cluster are masked in the files.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self._streams: dict[str, tuple[subprocess.Popen[str], threading.Thread]] = {}

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

    def follow(self, node: Node) -> None:
        """Append the journal of a node's current boot, from its beginning, to the node's file."""
        self._end(node.name)
        command = "journalctl --boot --follow --no-tail --quiet --output=short-iso-precise"
        process = subprocess.Popen(
            self.cluster.ssh.command(node.name, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout
        copier = threading.Thread(
            target=_copy, args=(process.stdout, self.file(node.name), self.cluster.credentials.mask), daemon=True
        )
        copier.start()
        self._streams[node.name] = (process, copier)

    def file(self, node: str) -> Path:
        """The file with the journal of a node, of all its boots."""
        return self.folder / f"{node}.log"

    def files(self) -> Iterator[Path]:
        """The files that exist so far."""
        yield from sorted(self.folder.glob("*.log"))

    def _end(self, name: str) -> None:
        if stream := self._streams.pop(name, None):
            process, copier = stream
            process.kill()
            process.wait()
            copier.join()


def _copy(lines: IO[str], file: Path, mask: Callable[[str], str]) -> None:
    """Append lines to a file as they arrive, masked."""
    with lines, file.open("a", encoding="utf-8") as copy:
        for text in _whole(lines):
            copy.write(mask(text))
            copy.flush()


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """The lines, but those of a private key as one text: a single line of it could not be recognised as a secret."""
    held = ""
    for line in lines:
        held += line
        if held.rfind("-----BEGIN ") > held.rfind("-----END ") and len(held) < _LONGEST_KEY:
            continue
        yield held
        held = ""
    if held:
        yield held
