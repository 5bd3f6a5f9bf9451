"""What was acknowledged stays what it is, also when consul carries out an earlier change late."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_consul import Consul, records_of

from swarmer.node.registry.errors import RegistryError
from swarmer.node.registry.records import MOST_UPLOADED, Fenced, Manifest

TAGS = ("one", "two")
DIGESTS = [f"sha256:{letter * 64}" for letter in "abc"]


def manifest(digest: str) -> Manifest:
    return Manifest("app", digest, "type", 1)


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
