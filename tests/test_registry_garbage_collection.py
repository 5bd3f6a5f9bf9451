"""Garbage collection on a tree like that of docker-registry."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmer.node.registry.contents import Lost
from swarmer.node.registry.errors import RegistryError, unavailable
from swarmer.node.registry.garbage_collection import check_plausible, collect, live
from swarmer.node.registry.manifests import Document
from swarmer.node.registry.records import Manifest

DIGESTS = [f"sha256:{number:064x}" for number in range(1, 7)]
REPOSITORIES = ["app", "team/app", "team"]
OLD, YOUNG, LIMIT = 100.0, 300.0, 200.0


def blob(root: Path, digest: str, age: float = OLD) -> Path:
    value = digest.removeprefix("sha256:")
    return written(root / "blobs/sha256" / value[:2] / value / "data", b"x" * 5000, age)


def link(root: Path, repository: str, kind: str, digest: str, age: float = OLD) -> Path:
    value = digest.removeprefix("sha256:")
    return written(root / "repositories" / repository / kind / "sha256" / value / "link", digest.encode(), age)


def written(file: Path, content: bytes, age: float) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (age, age))
    return file


def test_what_a_manifest_needs() -> None:
    manifest = Manifest("app", "sha256:m", "type", 1, uploaded=("sha256:u",))
    parts = Document("sha256:m", "type", 1, ("sha256:a", "sha256:b"), ("sha256:u", "sha256:f"), ("sha256:c",))
    assert live([manifest], lambda _: parts) == {("app", f"sha256:{letter}") for letter in "mabcu"}


def test_a_lost_manifest_needs_nothing_more_and_one_that_cannot_be_read_stops_the_collection() -> None:
    manifest = Manifest("app", "sha256:m", "type", 1)

    def failing(error: RegistryError) -> Callable[[Manifest], Document]:
        def document(_: Manifest) -> Document:
            raise error

        return document

    lost = failing(Lost(404, "MANIFEST_UNKNOWN", "lost"))
    assert live([manifest], lost) == {("app", "sha256:m")}
    with pytest.raises(RegistryError, match="try again"):
        live([manifest], failing(unavailable("no node answers; try again")))


def test_a_consul_that_has_lost_everything_makes_no_garbage_of_it(tmp_path: Path) -> None:
    check_plausible(tmp_path, changed=False)
    blob(tmp_path, DIGESTS[0])
    check_plausible(tmp_path, changed=False)  # of an abandoned upload
    link(tmp_path, "app", "_manifests/revisions", DIGESTS[0])
    check_plausible(tmp_path, changed=True)
    with pytest.raises(RegistryError, match="consul knows of no push"):
        check_plausible(tmp_path, changed=False)


def test_old_garbage_goes_and_is_counted(tmp_path: Path) -> None:
    needed, garbage, young = DIGESTS[:3]
    kept = [blob(tmp_path, needed), link(tmp_path, "app", "_layers", needed)]
    gone = [
        blob(tmp_path, garbage),
        link(tmp_path, "app", "_layers", garbage),
        link(tmp_path, "team/app", "_manifests/revisions", garbage),
        link(tmp_path, "team/app", "_layers", needed),
    ]
    kept += [blob(tmp_path, young, YOUNG), link(tmp_path, "app", "_layers", young)]
    freed = collect(tmp_path, {("app", needed)}, LIMIT)
    assert all(path.exists() for path in kept)
    # The link of the other repository is old, but its content isn't garbage: it goes alone.
    assert not any(path.exists() for path in gone)
    assert (freed.blobs, freed.kept) == (1, 2)
    assert freed.bytes >= 5000


def test_abandoned_uploads_are_removed(tmp_path: Path) -> None:
    uploads = tmp_path / "repositories/team/app/_uploads"
    left = written(uploads / "one/data", b"x" * 5000, OLD)
    written(uploads / "one/startedat", b"then", OLD)
    going_on = written(uploads / "two/data", b"x", YOUNG)
    for folder in ("one", "two"):
        os.utime(uploads / folder, (OLD, OLD))
    freed = collect(tmp_path, set(), LIMIT)
    assert not left.parent.exists()
    assert going_on.exists()
    assert freed.uploads == 1


def test_an_empty_registry_is_swept(tmp_path: Path) -> None:
    assert collect(tmp_path, set(), LIMIT).blobs == 0


PLACES = st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from(DIGESTS))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    blobs=st.dictionaries(st.sampled_from(DIGESTS), st.sampled_from([OLD, YOUNG])),
    links=st.dictionaries(PLACES, st.sampled_from([OLD, YOUNG])),
    needed=st.sets(PLACES),
)
def test_nothing_that_is_needed_or_young_goes_and_a_second_sweep_finds_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    blobs: dict[str, float],
    links: dict[tuple[str, str], float],
    needed: set[tuple[str, str]],
) -> None:
    root = tmp_path_factory.mktemp("tree")
    digests = {digest for _, digest in needed}
    for digest, age in blobs.items():
        blob(root, digest, age)
    for (repository, digest), age in links.items():
        link(root, repository, "_layers", digest, age)
    collect(root, needed, LIMIT)
    for digest, age in blobs.items():
        value = digest.removeprefix("sha256:")
        present = (root / "blobs/sha256" / value[:2] / value / "data").exists()
        assert present == (digest in digests or age == YOUNG)
    for (repository, digest), age in links.items():
        value = digest.removeprefix("sha256:")
        if (repository, digest) in needed or age == YOUNG or blobs.get(digest) == YOUNG:
            assert (root / "repositories" / repository / "_layers/sha256" / value / "link").exists()
    assert collect(root, needed, LIMIT).blobs == 0
