"""What was acknowledged stays what it is, also when consul carries out an earlier change late."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.consul_agent import Answer, Refused
from swarmer.node.registry.agents import Agents
from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.records import LOCK, MOST_UPLOADED, Fenced, Manifest, Records, next_index

TAGS = ("one", "two")
DIGESTS = [f"sha256:{letter * 64}" for letter in "abc"]


@dataclass
class Consul:
    """Consul's KV, as far as transactions need it: they may be held back, and be carried out after their answer is due.

    Attributes:
        slow: hold the next transaction back; who sent it gets no answer.
        lose_lock_after: the lock goes to another session after so many more transactions.
        most_bytes: of a request, as consul takes them.
        listed: whether more than single entries were read.
    """

    holder: str = "session"
    slow: bool = False
    lose_lock_after: int | None = None
    most_bytes: int = 512 << 10
    index: int = 1
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    held_back: list[list[dict[str, Any]]] = field(default_factory=list)
    listed: bool = False

    def ask(self, method: str, path: str, body: Any = None, **_options: object) -> Answer:
        if method == "GET":
            key, _, options = unquote(path).removeprefix("kv/").partition("?")
            many = "recurse" in options
            if "keys" in options:
                names = [name for name in self.entries if name.startswith(key)]
                return Answer(200 if names else 404, {}, json.dumps(names).encode())
            self.listed |= many
            found = [entry for name, entry in self.entries.items() if name == key or (many and name.startswith(key))]
            return Answer(200 if found else 404, {}, json.dumps(found).encode() if found else b"")
        if path == "txn?consistent":
            wanted = [step["KV"]["Key"] for step in body]
            return Answer(200, {}, json.dumps({"Results": self.results(wanted)}).encode())
        assert path == "txn"
        if len(json.dumps(body)) > self.most_bytes:
            return Answer(413, {}, b"request body too large")
        if self.slow:
            self.held_back.append(body)
            raise Refused("timed out")
        if not self.carry_out(body):
            return Answer(409, {}, b"{}")
        return Answer(200, {}, json.dumps({"Results": self.results([step["KV"]["Key"] for step in body])}).encode())

    def results(self, keys: list[str]) -> list[dict[str, Any]]:
        return [{"KV": self.entries[key]} for key in keys if key in self.entries]

    def carry_out(self, steps: list[dict[str, Any]]) -> bool:
        """All of it or nothing."""
        if self.lose_lock_after is not None:
            self.lose_lock_after -= 1
            if self.lose_lock_after < 0:
                return False
        entries = dict(self.entries)
        for step in (each["KV"] for each in steps):
            key, verb = step["Key"], step["Verb"]
            index = entries[key]["ModifyIndex"] if key in entries else 0
            match verb:
                case "check-session":
                    assert key == LOCK
                    if step["Session"] != self.holder:
                        return False
                case "cas" | "set":
                    if verb == "cas" and step["Index"] != index:
                        return False
                    entries[key] = {"Key": key, "Value": step["Value"], "ModifyIndex": self.index + 1}
                case "delete":
                    entries.pop(key, None)
                case _:
                    raise NotImplementedError(verb)
        self.index += 1
        self.entries = entries
        return True


def manifest(digest: str) -> Manifest:
    return Manifest("app", digest, "type", 1)


def records_of(consul: Consul, clock: Callable[[], float] = lambda: 0.0) -> Records:
    agents = Agents()
    setattr(agents, "ask", consul.ask)  # noqa: B010
    return Records(agents, clock)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "delete tag", "delete", "late push", "late delete tag", "late delete", "catch up"]),
        st.sampled_from(DIGESTS),
        st.sampled_from(TAGS),
    ),
    max_size=30,
)


@given(STEPS)
def test_nothing_sent_before_undoes_what_is_acknowledged(steps: list[tuple[str, str, str]]) -> None:
    consul = Consul()
    records = records_of(consul)
    since: list[Any] = []
    for what, digest, tag in steps:
        if what == "catch up":
            # Of all that was sent since the last acknowledged change, one may still come true; nothing older.
            done = [late for late in consul.held_back if consul.carry_out(late)]
            assert len(done) <= 1
            assert all(late in since for late in done)
            consul.held_back.clear()
            since.clear()
            continue
        consul.slow = what.startswith("late ")
        try:
            match what.removeprefix("late "):
                case "push":
                    records.acknowledge("session", manifest(digest), tag)
                    assert records.digest_of("app", tag) == digest
                case "delete tag":
                    records.forget_tag("session", "app", tag)
                    assert records.digest_of("app", tag) is None
                case _:
                    records.forget("session", "app", digest)
                    assert digest not in records.tags("app").values()
        except RegistryError:
            since.append(consul.held_back[-1])
        else:
            since.clear()


def test_a_tag_that_moved_on_does_not_go_back() -> None:
    consul = Consul()
    records = records_of(consul)
    old, new = map(manifest, DIGESTS[:2])
    consul.slow = True
    with pytest.raises(RegistryError, match="did not confirm"):
        records.acknowledge("session", old, "latest")
    consul.slow = False
    records.acknowledge("session", old, "latest")
    records.acknowledge("session", new, "latest")
    assert not consul.carry_out(consul.held_back[0])
    assert records.digest_of("app", "latest") == new.digest


def test_who_lost_the_lock_changes_nothing() -> None:
    consul = Consul(holder="another")
    records = records_of(consul)
    changes: tuple[Callable[[], None], ...] = (
        lambda: records.acknowledge("session", manifest(DIGESTS[0]), "latest"),
        lambda: records.forget_tag("session", "app", "latest"),
        lambda: records.forget("session", "app", DIGESTS[0]),
    )
    for change in changes:
        with pytest.raises(Fenced):
            change()
    assert not consul.entries


def test_a_manifest_of_very_many_tags_that_was_removed_in_part_is_removed_by_the_next_try() -> None:
    consul = Consul()
    records = records_of(consul)
    tags = [f"tag-{number:03}" for number in range(150)]
    for tag in tags:
        records.acknowledge("session", manifest(DIGESTS[0]), tag)
    consul.lose_lock_after = 2
    with pytest.raises(Fenced):
        records.forget("session", "app", DIGESTS[0])
    left = records.tags("app")
    assert 0 < len(left) < len(tags)
    # What a tag stands for is there.
    assert set(left.values()) == {DIGESTS[0]}
    assert records.manifest("app", DIGESTS[0])
    consul.lose_lock_after = None
    records.forget("session", "app", DIGESTS[0])
    assert not records.tags("app")
    assert not records.manifest("app", DIGESTS[0])


def test_a_push_reads_single_entries_only() -> None:
    consul = Consul()
    records = records_of(consul)
    subject, listed, index = (manifest(digest) for digest in DIGESTS)
    records.acknowledge("session", listed, "one")
    records.acknowledge("session", replace(index, subject=subject.digest), "one", [listed.digest])
    assert not consul.listed
    assert records.referrers("app", subject.digest) == [index.digest]
    records.forget("session", "app", index.digest)
    assert records.referrers("app", subject.digest) == []


def test_an_index_is_refused_if_what_it_lists_was_removed_meanwhile() -> None:
    consul = Consul()
    records = records_of(consul)
    listed, index = (manifest(digest) for digest in DIGESTS[:2])
    records.acknowledge("session", listed, None)
    records.check_listed("app", [listed.digest])
    records.forget("session", "app", listed.digest)
    with pytest.raises(RegistryError) as refused:
        records.acknowledge("session", index, None, [listed.digest])
    assert refused.value.code == "MANIFEST_BLOB_UNKNOWN"


def test_very_many_listed_manifests_are_looked_for() -> None:
    consul = Consul()
    records = records_of(consul)
    many = [f"sha256:{number:064}" for number in range(130)]
    for digest in many[:-1]:
        records.acknowledge("session", manifest(digest), None)
    assert sorted(records.some("app", many)) == many[:-1]
    with pytest.raises(RegistryError, match="129, which the index lists, does not exist"):
        records.check_listed("app", many)


def test_a_manifest_that_loses_a_tag_is_as_new() -> None:
    now = 100.0
    consul = Consul()
    records = records_of(consul, lambda: now)
    old, new = map(manifest, DIGESTS[:2])

    def named() -> list[int]:
        found = records.some("app", DIGESTS[:2])
        return [found[digest].named for digest in DIGESTS[:2] if digest in found]

    records.acknowledge("session", old, "latest")
    now = 200
    records.acknowledge("session", new, "latest")
    assert named() == [200, 200]
    now = 300
    records.acknowledge("session", new, "latest")
    assert named() == [200, 300]
    now = 400
    records.forget_tag("session", "app", "latest")
    assert named() == [200, 400]


def test_manifests_are_removed_only_as_they_were_looked_at() -> None:
    consul = Consul()
    records = records_of(consul)
    old, new = map(manifest, DIGESTS[:2])
    records.acknowledge("session", old, None)

    def choose(known: list[Manifest], tags: Any) -> list[Manifest]:
        assert not tags
        records.acknowledge("session", new, "latest")
        return known

    with pytest.raises(Fenced):
        records.forget_some("session", choose)
    assert sorted(records.some("app", DIGESTS)) == DIGESTS[:2]
    assert records.forget_some("session", lambda known, _: [each for each in known if each.digest == old.digest]) == 1
    assert list(records.some("app", DIGESTS)) == [new.digest]


def test_what_consul_can_never_record_is_not_called_temporary() -> None:
    records = records_of(Consul(most_bytes=100))
    with pytest.raises(RegistryError) as refused:
        records.acknowledge("session", manifest(DIGESTS[0]), "latest")
    assert (refused.value.status, refused.value.code) == (413, "SIZE_INVALID")
    assert not refused.value.headers


def test_the_largest_record_fits_into_consul() -> None:
    consul = Consul()
    many = tuple(f"sha256:{number:064}" for number in range(MOST_UPLOADED))
    largest = Manifest("r" * 255, DIGESTS[0], "t" * 80, 1, f"sha512:{'0' * 128}", many)
    records = records_of(consul)
    records.acknowledge("session", largest, "t" * 128)
    assert records.some(largest.repository, [DIGESTS[0]]) == {DIGESTS[0]: largest}


def test_the_question_after_a_restored_snapshot_does_not_wait() -> None:
    def answer(index: int) -> Answer:
        return Answer(200, {"X-Consul-Index": str(index)}, b"[]")

    assert [next_index(answer(12), before) for before in (0, 11, 12)] == [12, 12, 12]
    assert next_index(answer(12), 13) == 0
