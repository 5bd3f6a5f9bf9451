"""Content that a node lacks, and that no node has any more."""

import io
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarmer.node.registry import disk
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.replication import Replication
from swarmer.node.registry.settings import Settings

LOST = Manifest("library/one", "sha256:" + "0" * 64, "application/json", 2)


class Others(Peers):
    """Peers that lack it, or don't answer."""

    def __init__(self, answer: Exception) -> None:
        self.answer = answer

    def content(self, *_: Any, **__: Any) -> Any:
        raise self.answer


def copies(nodes: Mapping[str, str], answer: Exception) -> Replication:
    settings = Settings("one", nodes, "dev.nspawn", "filesystem", "nspawn:dev", "swarmer", "", "")
    return Replication(settings, Others(answer))


@pytest.fixture(autouse=True)
def empty_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on this node's disk."""
    monkeypatch.setattr(disk, "STORAGE_ROOT", tmp_path)
    monkeypatch.setattr(disk, "_COLLECTION_LOCK", tmp_path / "garbage-collection.lock")
    monkeypatch.setattr(disk, "_TREE", tmp_path / "docker/registry/v2")


class Wrong(Peers):
    """A peer that has another manifest under the digest that is asked for."""

    def __init__(self) -> None:
        pass

    def content(self, *_: Any, **__: Any) -> Any:
        answer = io.BytesIO(b'{"schemaVersion": 2, "layers": []}')
        return nullcontext(SimpleNamespace(read=answer.read, headers={"Content-Type": "application/json"}))


def test_a_manifest_with_another_digest_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is given to docker-registry, nor any of its layers fetched."""
    monkeypatch.setattr("swarmer.node.registry.docker_registry.put_manifest", pytest.fail)
    settings = Settings("one", {"one": "10.0.0.1", "two": "10.0.0.2"}, "dev.nspawn", "filesystem", "a:b", "c", "", "")
    with pytest.raises(OSError, match="two sent other content"):
        Replication(settings, Wrong()).fetch("two", LOST.repository, LOST.digest)
