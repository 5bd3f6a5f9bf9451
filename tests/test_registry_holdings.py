"""A node learns what was changed, whatever happens in between, and looks at no more than that."""

from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_consul import Consul, records_of

from swarmer.node.registry import disk, holdings, journal
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.holdings import Holdings
from swarmer.node.registry.journal import CHANGED, Position
from swarmer.node.registry.peers import Peers
from swarmer.node.registry.records import Manifest
from swarmer.node.registry.replication import Replication
from swarmer.node.registry.settings import Settings

LOST = Manifest("library/one", "sha256:" + "0" * 64, "application/json", 2)
DIGESTS = [f"sha256:{letter * 64}" for letter in "abcd"]


def manifest(digest: str) -> Manifest:
    return Manifest("app", digest, "type", 1)


class Others(Peers):
    """Peers that lack it, or don't answer."""

    def __init__(self, answer: Exception) -> None:
        self.answer = answer

    def content(self, *_: Any, **__: Any) -> Any:
        raise self.answer


class Node:
    """A node whose disk is a set of keys; it learns of changes only when it is told to look."""

    def __init__(self, consul: Consul, patch: pytest.MonkeyPatch, answer: Exception | None = None) -> None:
        self.consul = consul
        self.disk: set[str] = set()
        self.looks = 0
        settings = Settings(
            "one", {"one": "10.0.0.1", "two": "10.0.0.2"}, "dev.nspawn", "filesystem", "a:b", "c", "", ""
        )
        replication = Replication(settings, Others(answer or OSError("silent")))
        if answer is None:
            patch.setattr(replication, "fetch_from_any", self._fetch)
        patch.setattr(holdings, "_is_here", self._is_here)
        for name in ("touch", "flush_to_disk"):
            patch.setattr(disk, name, lambda *_: None)
        self.holdings = Holdings(records_of(consul), replication)

    def _is_here(self, manifest: Manifest, **_: Any) -> bool:
        self.looks += 1
        return manifest.key in self.disk

    def _fetch(self, manifest: Manifest, **_: Any) -> Literal[True]:
        self.disk.add(manifest.key)
        return True

    def look(self) -> None:
        entry = self.consul.entries.get(CHANGED)
        self.holdings.step(Position.of(entry) if entry else Position())


WHAT = ["push", "push", "late push", "delete", "delete all", "look", "late ones come true", "snapshot", "restore"]
#: Long enough that several of these come together.
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.sampled_from(DIGESTS)), min_size=12, max_size=40)


@settings(max_examples=300)
@given(steps=STEPS)
def test_a_node_has_what_is_acknowledged_whatever_it_missed(steps: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "LENGTH", 3)
        consul = Consul()
        records, node = records_of(consul), Node(consul, patch)
        snapshot: dict[str, Any] = {}
        for what, digest in [*steps, ("look", "")]:
            consul.slow = what == "late push"
            match what:
                case "look":
                    node.look()
                    acknowledged = {found.key for found in records.manifests()}
                    assert set(node.holdings._known) == acknowledged
                    assert acknowledged <= node.disk
                    assert node.holdings.complete
                case "late ones come true":
                    for late in consul.held_back:
                        consul.carry_out(late)
                    consul.held_back.clear()
                case "snapshot":
                    snapshot = dict(consul.entries)
                case "restore":
                    consul.entries = dict(snapshot)
                case "delete all":
                    records.forget_some("session", lambda known, _: known)
                case "delete":
                    records.forget("session", "app", digest)
                case "push":
                    records.acknowledge("session", manifest(digest), "tag")
                case "late push":
                    with pytest.raises(RegistryError):
                        records.acknowledge("session", manifest(digest), "tag")


def test_a_push_costs_the_same_however_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(others: int) -> tuple[int, int, int]:
        consul = Consul()
        records, node = records_of(consul), Node(consul, monkeypatch)
        for number in range(others):
            records.acknowledge("session", replace(LOST, digest=f"sha256:{number:064}"), f"tag-{number:04}")
        node.look()
        consul.asked = consul.bytes = node.looks = 0
        records.acknowledge("session", manifest(DIGESTS[0]), "tag")
        node.look()
        return consul.asked, consul.bytes, node.looks

    few, many = cost(10), cost(1000)
    assert few[0] == many[0]
    assert abs(few[1] - many[1]) < 100  # indexes with more digits
    assert few[2] == many[2] == 1


def test_content_that_disappears_from_the_disk_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    consul = Consul()
    records, node = records_of(consul), Node(consul, monkeypatch)
    for digest in DIGESTS:
        records.acknowledge("session", manifest(digest), None)
    node.look()
    node.disk.remove(manifest(DIGESTS[2]).key)
    for _ in range(len(DIGESTS) + 1):
        node.look()
    assert manifest(DIGESTS[2]).key in node.disk


def test_what_no_node_has_is_lost_and_the_node_serves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    consul = Consul()
    records_of(consul).acknowledge("session", LOST, None)
    node = Node(consul, monkeypatch, RegistryError(404, "MANIFEST_UNKNOWN", "not here"))
    node.look()
    assert node.holdings.complete
    assert node.holdings.joined
    assert "1 lost" in node.holdings.status()


def test_what_a_silent_node_may_have_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    consul = Consul()
    records_of(consul).acknowledge("session", LOST, None)
    node = Node(consul, monkeypatch, OSError("silent"))
    node.look()
    assert not node.holdings.joined
    assert "1 to be fetched" in node.holdings.status()
