"""What hangs is ended and named, with the stacks of all threads, and what it had made is removed."""

import pytest
from harness import REPOSITORY

pytest_plugins = ("pytester",)

#: Makes the deadlines so short that these tests take seconds.
_SHORT = """
import time
from concurrent.futures import ThreadPoolExecutor
import pytest
from fixtures import deadlines
from fixtures.deadlines import grow_with
from swarmer.wait import Waiting
deadlines.SCENARIO = 1
deadlines.AGAIN = 0.5

def hang():
    while True:
        time.sleep(0.1)

@pytest.fixture(scope="session", autouse=True)
def cluster():
    yield
    print("torn down")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return Run(pytester)


class Run:
    """Runs a module of tests under deadlines of a second."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(self, source: str, *options: str, passed: int = 0, failed: int = 0, errors: int = 0) -> str:
        """What pytest prints about the tests."""
        self._pytester.makepyfile(_SHORT + source)
        result = self._pytester.runpytest_subprocess("-p", "fixtures.deadlines", "-s", *options, timeout=60)
        result.assert_outcomes(passed=passed, failed=failed, errors=errors)
        result.stdout.fnmatch_lines(["*torn down*"])
        return str(result.stdout) + str(result.stderr)


def test_a_hanging_scenario_fails_with_the_stacks_of_all_threads(run: Run) -> None:
    output = run(
        """
def test_that_hangs():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 1.5)
        hang()

def test_after_it():
    pass
""",
        passed=1,
        failed=1,
    )
    assert "::test_that_hangs hangs: it took longer than 1 s" in output
    assert "stacks of all threads" in output
    assert "in hang" in output
    assert "in _worker" in output, "the stack of the pool's thread"


_WAITS = {
    "sleep": "interrupts.sleep(600)",
    "program": "shell.run(['sleep', '600'], timeout=600)",
    "pool": "with Pool(1) as pool: pool.map(interrupts.sleep, [600])",
    "undoing": "with UndoStack() as undo: undo.add('it', lambda: interrupts.sleep(600))",
}


@pytest.mark.parametrize("wait", _WAITS)
@pytest.mark.parametrize(
    ("phase", "outcomes"),
    [("setup", {"errors": 1}), ("call", {"failed": 1}), ("teardown", {"passed": 1, "errors": 1})],
)
def test_what_waits_notices_its_deadline(run: Run, phase: str, outcomes: dict[str, int], wait: str) -> None:
    """It is not interrupted wherever it is; that would come minutes later."""
    output = run(
        f"""
from swarmer import interrupts, shell
from swarmer.pool import Pool
from swarmer.undo import UndoStack
deadlines.AGAIN = 600

def hang():
    {_WAITS[wait]}

@pytest.fixture
def hanging():
    if {phase!r} == "setup":
        hang()
    yield
    if {phase!r} == "teardown":
        hang()

def test_it(hanging):
    if {phase!r} == "call":
        hang()
""",
        **outcomes,
    )
    assert f"the {phase} of " in output
    assert "hangs: it took longer than 1 s" in output


def test_a_missed_deadline_that_nothing_noticed_fails_the_scenario_at_its_end(run: Run) -> None:
    output = run(
        """
deadlines.AGAIN = 600

def test_too_slow():
    time.sleep(1.5)

def test_after_it():
    pass
""",
        passed=1,
        failed=1,
    )
    assert "test_too_slow hangs: it took longer than 1 s" in output


@pytest.mark.parametrize(("phase", "outcomes"), [("setup", {"errors": 1}), ("teardown", {"passed": 1, "errors": 1})])
def test_a_hanging_fixture_is_named_by_its_phase(run: Run, phase: str, outcomes: dict[str, int]) -> None:
    output = run(
        f"""
@pytest.fixture
def hanging():
    if {phase!r} == "setup":
        hang()
    yield
    hang()

def test_it(hanging):
    pass
""",
        **outcomes,
    )
    assert f"the {phase} of test_a_hanging_fixture_is_named_by_its_phase.py::test_it hangs" in output


def test_the_deadline_of_the_run_ends_it_and_names_what_hangs(run: Run) -> None:
    output = run(
        """
@pytest.mark.deadline(60)
def test_that_hangs():
    hang()

def test_after_it():
    pass
""",
        "--run-deadline=5",
    )
    assert "the run hangs: it took longer than 5 s during " in output
    assert "::test_that_hangs" in output
    assert "in hang" in output


def test_the_clean_up_of_a_hanging_scenario_is_interrupted_too(run: Run) -> None:
    """Also a thread that goes on forever keeps nothing from ending."""
    output = run(
        """
def test_that_hangs():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(hang)
        hang()
""",
        failed=1,
    )
    assert "in shutdown" in output, "the second stack"


def test_deadlines_grow_with_a_slowness_that_is_measured_meanwhile(run: Run) -> None:
    run(
        """
class Slow(Waiting):
    slowness = 3.0

@pytest.fixture
def slow(request):
    grow_with(request.config, Slow())
    time.sleep(1.5)

def test_it(slow):
    time.sleep(1.5)
""",
        passed=1,
    )


def test_a_long_scenario_and_one_with_a_deadline_of_its_own_take_their_time(run: Run) -> None:
    run(
        """
@pytest.mark.long
def test_long():
    time.sleep(1.5)

@pytest.mark.deadline(3)
def test_with_its_own():
    time.sleep(1.5)
""",
        passed=2,
    )


def test_a_plugin_that_takes_sigalrm_for_itself_disables_no_deadline(run: Run) -> None:
    """As pytest-timeout does: its handler is gone after each test, and the default one kills the process."""
    output = run(
        """
import signal

def test_that_uses_it():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    time.sleep(0.2)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

def test_that_hangs():
    hang()
""",
        passed=1,
        failed=1,
    )
    assert "::test_that_hangs hangs: it took longer than 1 s" in output
