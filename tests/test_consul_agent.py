"""Following a path of consul with blocking queries."""

from collections.abc import Sequence
from typing import Any

import pytest

from swarmer.node.consul_agent import Answer, Refused, Silent, Watch


class Agent:
    """Stands in for consul's agent: answers as scripted, and remembers what it was asked."""

    def __init__(self, answers: Sequence[Answer | Refused]) -> None:
        self.answers = list(answers)
        self.questions: list[tuple[str, float | None]] = []

    def ask(self, _: str, path: str, *, timeout: float | None = None) -> Answer:
        self.questions.append((path, timeout))
        answer = self.answers.pop(0)
        if isinstance(answer, Refused):
            raise answer
        return answer


def at(index: int, status: int = 200) -> Answer:
    return Answer(status, {"X-Consul-Index": str(index)}, b"")


NOW = "kv/x?recurse&consistent"


def after(index: int) -> str:
    return f"kv/x?recurse&index={index}&wait=60000ms"


def ask_all(*answers: Answer | Refused) -> list[str]:
    """The questions of a watch that gets these answers."""
    agent: Any = Agent(answers)
    watch = Watch(agent, "kv/x?recurse", wait=60, first="consistent")
    for answer in answers:
        if isinstance(answer, Refused) or answer.status not in (200, 404):
            with pytest.raises(Refused):
                watch.next()
        else:
            assert watch.next() is answer
    return [path for path, _ in agent.questions]


def test_the_first_question_is_answered_immediately_and_the_others_when_something_changed() -> None:
    assert ask_all(at(5), at(5), at(7, status=404), at(9)) == [NOW, after(5), after(5), after(7)]


def test_it_restarts_when_the_index_goes_back() -> None:
    assert ask_all(at(50), at(3), at(3), at(4)) == [NOW, after(50), NOW, after(3)]


@pytest.mark.parametrize("error", [Silent("no answer"), at(5, status=500), at(5, status=403)])
def test_it_restarts_after_an_error(error: Answer | Refused) -> None:
    assert ask_all(at(5), error, at(5), at(5)) == [NOW, after(5), NOW, after(5)]


def test_an_answer_that_consul_may_hold_back_is_waited_for_longer() -> None:
    agent: Any = Agent([at(5), at(5)])
    watch = Watch(agent, "kv/x", wait=60, first="")
    watch.next()
    watch.next()
    (_, first), (_, second) = agent.questions
    assert first is None
    # Consul adds up to a sixteenth.
    assert second is not None
    assert second > 60 + 60 / 16


def test_restart_has_the_next_question_answered_immediately() -> None:
    agent: Any = Agent([at(5), at(5)])
    watch = Watch(agent, "kv/x", wait=60, first="")
    watch.next()
    watch.restart()
    watch.next()
    assert [path for path, _ in agent.questions] == ["kv/x?", "kv/x?"]


def test_an_error_carries_the_status_and_the_words_of_consul() -> None:
    agent: Any = Agent([Answer(403, {}, b"Permission denied\n")])
    with pytest.raises(Refused) as caught:
        Watch(agent, "kv/x", wait=60, first="").next()
    assert (caught.value.status, caught.value.reason) == (403, "Permission denied")
