"""The ledger: wherever a run is interrupted, everything that it lists can be removed: nothing is left over."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs

from swarmer.errors import SwarmerError
from swarmer.ledger import Ledger, Ownership, Resource
from swarmer.spec import Spec
from swarmer.state import ClusterHome


class Killed(BaseException):
    """The process is killed."""


class World:
    """Resources, and a process that is killed at its n-th step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.things: set[Resource] = set()

    def step(self) -> None:
        if self.steps == 0:
            raise Killed
        self.steps -= 1

    def make(self, ledger: Ledger, kind: str, name: str) -> None:
        """Like a stack: record the resource, then create it."""
        self.step()
        resource = ledger.record(kind, name)
        self.step()
        self.things.add(resource)

    def remove(self, resource: Resource) -> None:
        """Removing a resource that doesn't exist is not an error."""
        self.step()
        self.things.discard(resource)
        self.step()


resources = st.lists(
    st.tuples(st.sampled_from(["path", "network", "processes"]), st.text("abc", min_size=1, max_size=3)),
    min_size=1,
    max_size=8,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterHome:
    monkeypatch.setenv("SWARMER_HOME", str(tmp_path))
    return ClusterHome("nspawn", "ledger")


@pytest.fixture(scope="module")
def spec() -> Spec:
    server = {"name": "one", "memory": 512, "cpus": 1, "ip": "10.0.0.2", "consul": "server", "swarm": "both"}
    return Spec.model_validate({"admin_network": "10.0.0.0/24", "stack": "nspawn", "dc": "ledger", "servers": [server]})


@settings(deadline=None, max_examples=60)
@given(made=resources, made_steps=st.integers(0, 20), removed_steps=st.lists(st.integers(0, 6), max_size=3))
def test_after_any_interruption_the_next_removal_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    spec: Spec,
    made: list[tuple[str, str]],
    made_steps: int,
    removed_steps: list[int],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARMER_HOME", str(tmp_path_factory.mktemp("home")))
        home = ClusterHome("nspawn", "ledger")
        world = World(made_steps)
        ledger = Ledger(home, spec=spec, image="0")
        ledger.save()
        try:
            for kind, name in made:
                world.make(ledger, kind, name)
        except Killed:
            pass
        for steps in [*removed_steps, 10**6]:
            if not home.ledger.exists():
                break
            listed = Ledger.load(home)
            assert world.things <= set(listed.resources)
            world.steps = steps
            try:
                listed.remove_all(world.remove)
            except Killed:
                continue
        assert world.things == set()
        assert not home.ledger.exists()


def test_the_newest_resource_is_removed_first(home: ClusterHome, spec: Spec) -> None:
    ledger = Ledger(home, spec=spec, image="0")
    made = [ledger.record("path", name) for name in ("first", "second", "third")]
    removed: list[Resource] = []
    Ledger.load(home).remove_all(removed.append)
    assert removed == made[::-1]


@given(spec=specs())
@settings(deadline=None, max_examples=20)
def test_a_saved_ledger_is_read_back(tmp_path_factory: pytest.TempPathFactory, spec: Spec) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARMER_HOME", str(tmp_path_factory.mktemp("home")))
        home = ClusterHome(spec.stack, spec.dc)
        ledger = Ledger(home, spec=spec, image="id", layers=["base", "node"])
        ledger.record("path", "/x")
        ledger.set_kept(True)
        ledger.mark_broken("a scenario broke it")
        again = Ledger.load(home)
        assert (again.spec, again.image, again.layers) == (spec, "id", ["base", "node"])
        assert (again.kept, again.broken, again.resources) == (True, "a scenario broke it", [Resource("path", "/x")])
        assert stat.S_IMODE(home.ledger.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", json.dumps({"spec": {}})])
def test_a_damaged_ledger_is_reported_in_a_sentence_and_stays(home: ClusterHome, content: str) -> None:
    home.make()
    home.ledger.write_text(content)
    with pytest.raises(SwarmerError, match=r"can't be read"):
        Ledger.load(home)
    assert home.ledger.read_text() == content


def test_only_one_process_owns_a_cluster(home: ClusterHome) -> None:
    first, second = Ownership(home), Ownership(home)
    assert first.acquire()
    assert not second.acquire()
    assert second.holder() == os.getpid()
    first.release()
    assert second.acquire()
    second.release()
    assert Ownership(home).holder() is None


def test_an_independent_resource_that_can_not_be_removed_is_skipped_and_stays_listed(
    home: ClusterHome, spec: Spec
) -> None:
    ledger = Ledger(home, spec=spec, image="0")
    for kind in ("path", "host-dns", "network"):
        ledger.record(kind, kind)
    removed: list[str] = []

    def remove(resource: Resource) -> None:
        if resource.kind == "host-dns":
            raise SwarmerError("only root can undo it")
        removed.append(resource.kind)

    with pytest.raises(SwarmerError, match="only root can undo it"):
        ledger.remove_all(remove, independent={"host-dns"})
    assert removed == ["network", "path"]
    assert Ledger.load(home).resources == [Resource("host-dns", "host-dns")]


def test_a_resource_that_can_not_be_removed_keeps_the_older_ones(home: ClusterHome, spec: Spec) -> None:
    ledger = Ledger(home, spec=spec, image="0")
    made = [ledger.record(kind, kind) for kind in ("path", "network")]

    def remove(_: Resource) -> None:
        raise SwarmerError("busy")

    with pytest.raises(SwarmerError, match="busy"):
        ledger.remove_all(remove, independent={"host-dns"})
    assert Ledger.load(home).resources == made
