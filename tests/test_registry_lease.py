"""Never two writers: the lease ends before consul can give the lock to another, whatever the order of events."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmer.node.registry.lease import LEASE, LOCK_DELAY, Lease


@dataclass
class Consul:
    """The lock as consul keeps it: free again a lock-delay after the end of its holder's session."""

    now: float = 0.0
    holder: str = ""
    free_at: float = 0.0

    def end_session(self) -> None:
        if self.holder:
            self.holder, self.free_at = "", self.now + LOCK_DELAY

    def acquire(self, name: str) -> bool:
        if self.holder or self.now < self.free_at:
            return False
        self.holder = name
        return True


@dataclass
class Node:
    """A node that asks consul whether it holds the lock; answers may take any time."""

    name: str
    consul: Consul
    lease: Lease = field(init=False)
    answers: list[tuple[float, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lease = Lease(lambda: self.consul.now)

    def ask(self) -> None:
        # Consul looks at some moment after it was asked; the answer is read even later.
        self.answers.append((self.lease.now(), self.consul.holder == self.name))

    def read_answer(self) -> None:
        if self.answers:
            asked, holds = self.answers.pop(0)
            if holds:
                self.lease.prove(self.name, asked)
            else:
                self.lease.end()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("time"), st.floats(0, 2)),
        st.tuples(st.sampled_from(["ask", "read", "acquire"]), st.integers(0, 2)),
        st.tuples(st.just("session ends"), st.none()),
    ),
    max_size=80,
)


@settings(max_examples=500)
@given(STEPS)
def test_no_two_nodes_have_a_lease_at_once(steps: list[tuple[str, float | int | None]]) -> None:
    consul = Consul()
    nodes = [Node(name, consul) for name in ("a", "b", "c")]
    for step, value in steps:
        match step:
            case "time":
                consul.now += value or 0
            case "ask":
                nodes[int(value or 0)].ask()
            case "read":
                nodes[int(value or 0)].read_answer()
            case "acquire":
                consul.acquire(nodes[int(value or 0)].name)
            case _:
                consul.end_session()
        leading = [node.name for node in nodes if node.lease.session()]
        assert len(leading) <= 1, leading


def test_a_lease_is_over_without_another_proof() -> None:
    now = 100.0
    lease = Lease(lambda: now)
    assert lease.session() is None
    lease.prove("session", asked=100.0)
    now += LEASE - 0.01
    assert lease.session() == "session"
    now += 0.02
    assert lease.session() is None
    assert lease.wait(0.01) is None


def test_a_late_answer_proves_nothing() -> None:
    lease = Lease(lambda: 200.0)
    lease.prove("session", asked=200.0 - LEASE)
    assert lease.session() is None


def test_the_end_is_at_once() -> None:
    lease = Lease(lambda: 300.0)
    lease.prove("session", asked=300.0)
    lease.end()
    assert lease.session() is None


def test_a_lease_is_shorter_than_the_lock_delay() -> None:
    assert LEASE < LOCK_DELAY
