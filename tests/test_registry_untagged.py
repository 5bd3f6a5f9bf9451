"""Which manifests go when those without a tag are removed."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from swarmer.node.registry.records import Manifest
from swarmer.node.registry.untagged import untagged

OLD, LIMIT, YOUNG = 1, 2, 3
NAMES = "abcdef"

NOTHING: st.SearchStrategy[set[str]] = st.just(set())

#: Each manifest lists earlier ones, as it can name only what exists, and refers to any.
GRAPHS = st.fixed_dictionaries(
    {
        name: st.tuples(
            st.sets(st.sampled_from(NAMES[:number])) if number else st.just(set()), st.sampled_from("-" + NAMES)
        )
        for number, name in enumerate(NAMES)
    }
)


def manifest(digest: str, subject: str = "", named: int = OLD, repository: str = "app") -> Manifest:
    return Manifest(repository, digest, "type", 1, subject=subject.strip("-"), named=named)


def removed(manifests: Sequence[Manifest], tags: Sequence[str], lists: dict[str, Sequence[str]]) -> str:
    found = untagged(
        manifests, {"app": {f"tag-{tag}": tag for tag in tags}}, lambda each: lists.get(each.digest, ()), LIMIT
    )
    return "".join(each.digest for each in found)


def test_what_a_tag_moved_away_from_goes() -> None:
    assert removed([manifest("a"), manifest("b")], "b", {}) == "a"


def test_what_was_pushed_or_lost_its_tag_lately_is_kept() -> None:
    assert removed([manifest("a"), manifest("b", named=YOUNG), manifest("c", named=LIMIT)], "", {}) == "a"


def test_what_a_kept_index_lists_is_kept_and_goes_after_it() -> None:
    manifests = [manifest(name) for name in "abci"]
    assert removed(manifests, "i", {"i": "ab"}) == "c"
    assert removed(manifests, "c", {"i": "ab"})[0] == "i"


def test_what_refers_to_a_kept_image_is_kept_also_over_several_steps() -> None:
    signed = [manifest("a"), manifest("s", subject="a"), manifest("t", subject="s"), manifest("x", subject="gone")]
    assert removed(signed, "a", {}) == "x"
    assert sorted(removed(signed, "", {})) == list("astx")


def test_another_repository_keeps_nothing() -> None:
    assert removed([manifest("a"), manifest("s", subject="a", repository="other")], "a", {}) == "s"


@given(GRAPHS, st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_all_that_is_needed_stays_and_all_the_rest_goes(
    graph: dict[str, tuple[set[str], str]], tagged: set[str], young: set[str]
) -> None:
    manifests = [manifest(name, subject, YOUNG if name in young else OLD) for name, (_, subject) in graph.items()]
    lists: dict[str, Sequence[str]] = {name: sorted(listed) for name, (listed, _) in graph.items()}
    gone = removed(manifests, sorted(tagged), lists)
    kept = set(NAMES) - set(gone)
    assert tagged | young <= kept
    for name in kept:
        assert set(lists[name]) <= kept
        assert name in tagged | young or any(name in lists[each] or graph[name][1] == each for each in kept)
    for name in gone:
        assert graph[name][1] not in kept
        # An index goes before what it lists.
        assert all(gone.index(name) < gone.index(listed) for listed in set(lists[name]) & set(gone))
