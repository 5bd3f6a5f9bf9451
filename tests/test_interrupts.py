"""Signals end what runs without leaving anything, whenever they come: waits, processes, pools, and what is undone."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from harness import HEEDING, REPOSITORY

from swarmer import interrupts, shell
from swarmer.errors import HostError
from swarmer.files import take_lock
from swarmer.pool import Pool
from swarmer.undo import UndoStack
from swarmer.wait import NotYet, until


class Interruption(BaseException):
    """What is requested in these tests."""


def _request() -> Interruption:
    error = Interruption()
    interrupts.request(error)
    return error


def _after(seconds: float) -> threading.Timer:
    """Make a request soon."""
    timer = threading.Timer(seconds, lambda: interrupts.request(Interruption()))
    timer.start()
    return timer


def test_what_was_requested_is_raised_once_by_the_main_thread() -> None:
    requested = _request()
    with pytest.raises(Interruption) as raised:
        interrupts.check()
    assert raised.value is requested
    interrupts.check()
    interrupts.sleep(0)


def test_nothing_but_what_is_urgent_passes_a_shield() -> None:
    urgent, other = Interruption(), Interruption()
    with pytest.raises(Interruption) as raised:
        with interrupts.shielded():
            interrupts.request(other)
            interrupts.sleep(0)
            interrupts.request(urgent, urgent=True)
            with pytest.raises(Interruption) as first:
                interrupts.sleep(0)
            assert first.value is urgent
        interrupts.check()
    assert raised.value is other


def test_a_shield_may_be_opened_for_a_wait() -> None:
    _request()
    with interrupts.shielded():
        with interrupts.unshielded(), pytest.raises(Interruption):
            interrupts.sleep(1)
        assert interrupts.is_shielded()


def _hang() -> None:
    raise NotYet("never")


@pytest.mark.parametrize(
    "wait",
    [
        lambda: interrupts.sleep(600),
        lambda: until("the end of time", _hang, timeout=600, interval=500),
        lambda: shell.run(["sleep", "600"], timeout=600),
        lambda: _in_pool(lambda: interrupts.sleep(600)),
        lambda: _in_pool(lambda: shell.run(["sleep", "600"], timeout=600)),
        lambda: _in_pool(lambda: _in_pool(lambda: until("the end", _hang, timeout=600))),
    ],
)
def test_every_wait_ends_and_no_process_is_left(wait: object) -> None:
    threads = threading.active_count()
    timer = _after(0.02)
    with pytest.raises(Interruption):
        wait()  # type: ignore[operator]
    timer.join()
    assert threading.active_count() == threads
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _in_pool(function: object) -> None:
    with Pool(2) as pool:
        pool.map(lambda _: function(), range(4))  # type: ignore[operator]


def test_a_lock_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    holder = subprocess.Popen(["flock", str(file), "sh", "-c", "echo; read _"], stdin=-1, stdout=-1)
    with holder, file.open() as lock:
        assert holder.stdin
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(HostError, match="waited 0 s for its holder"):
            take_lock(lock.fileno(), "its holder", timeout=0)
        timer = _after(0.02)
        with pytest.raises(Interruption):
            take_lock(lock.fileno(), "its holder", timeout=600)
        timer.join()
        take_lock(lock.fileno(), "its holder", waiting=holder.stdin.close)


def test_the_lines_of_a_silent_program_are_not_waited_for_forever() -> None:
    with subprocess.Popen(["sh", "-c", "echo one; printf two; exec sleep 600"], bufsize=0, stdout=-1) as process:
        assert process.stdout
        lines = shell.lines(process.stdout, silence=0.2)
        assert next(lines) == "one"
        with pytest.raises(TimeoutError):
            next(lines)
        process.kill()


def test_a_pool_ends_what_runs_when_its_block_fails_and_begins_nothing_more() -> None:
    begun: list[int] = []
    ended: list[type[BaseException]] = []

    def work(number: int) -> None:
        begun.append(number)
        try:
            interrupts.sleep(600)
        except BaseException as error:
            ended.append(type(error))
            raise

    with pytest.raises(ValueError, match="the block"), Pool(2) as pool:
        for number in range(4):
            pool.submit(work, number)
        while len(begun) < 2:
            interrupts.sleep(0.001)
        raise ValueError("the block")
    assert begun == [0, 1]
    assert ended == [interrupts.Cancelled] * 2


def test_the_first_failure_of_a_pool_is_known_at_once_and_that_of_a_map_when_all_have_ended() -> None:
    def fail() -> None:
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"), Pool(2) as pool:
        pool.results([pool.submit(interrupts.sleep, 600), pool.submit(fail)])

    done: list[float] = []

    def work(seconds: float) -> None:
        interrupts.sleep(seconds)
        done.append(seconds)
        if seconds < 0.2:
            raise ValueError(seconds)

    with pytest.raises(ValueError, match=r"0\.1"), Pool(3) as pool:
        pool.map(work, [0.1, 0, 0.2])
    assert done == [0, 0.1, 0.2]


def test_the_end_of_a_pool_waits_for_what_was_submitted() -> None:
    with Pool(1) as pool:
        first, second = pool.submit(interrupts.sleep, 0.05), pool.submit(lambda: "done")
    assert first.done()
    assert second.result() == "done"


def test_what_is_undone_is_undone_to_its_end() -> None:
    _request()
    undone: list[str] = []

    def step(name: str) -> None:
        interrupts.sleep(0)
        with Pool(2) as pool:
            undone.extend(pool.map(lambda word: shell.run(["echo", word]).stdout.strip(), [name, name]))

    with UndoStack() as undo:
        undo.add("one", lambda: step("one"))
        undo.add("two", lambda: step("two"))
    assert undone == ["two", "two", "one", "one"]
    with pytest.raises(Interruption):
        interrupts.check()


def test_ctrl_c_does_not_reach_the_programs_that_undo() -> None:
    inside = "ps -o sid= -p $$"
    ours = shell.run(["sh", "-c", inside]).stdout
    with interrupts.shielded():
        assert shell.run(["sh", "-c", inside]).stdout != ours


def test_a_program_that_ctrl_c_ended_is_not_a_failure_of_its_own() -> None:
    """A terminal sends the signal to the program, too."""
    _request()
    with interrupts.shielded(), pytest.raises(HostError, match="failed with -2"):
        shell.run(["sh", "-c", "kill -INT $$"])
    with pytest.raises(Interruption):
        shell.run(["sh", "-c", "kill -INT $$"])


#: A pool whose threads wait for each other, and a signal that comes before the instruction of a given number, of all
#: that the main thread executes. Many times, each with another number.
_AT_RANDOM = """
import random, signal, sys, threading
from swarmer import interrupts, signals
from swarmer.pool import Pool

def inner(number):
    interrupts.sleep(0.0005 * (number % 3))
    return number

def outer(number):
    with Pool(2) as pool:
        return sum(pool.map(inner, range(3))) + number

def work():
    with Pool(4) as pool:
        futures = [pool.submit(outer, number) for number in range(3)]
        assert pool.map(inner, range(6)) == list(range(6))
        assert pool.results(futures) == [3, 4, 5]

executed = 0
moment = 0

def trace(frame, event, _):
    global executed
    frame.f_trace_opcodes = True
    if event == "opcode":
        executed += 1
        if executed == moment:
            signal.raise_signal(signal.SIGTERM)
    return trace

def traced():
    global executed
    executed = 0
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)

signals.install_handlers()
threads = threading.active_count()
traced()
generator = random.Random(int(sys.argv[1]))
moments = [generator.randrange(1, executed) for _ in range(int(sys.argv[2]))]
struck = 0
for moment in moments:
    signals._interruption.error = None
    try:
        traced()
        interrupts.check()
    except KeyboardInterrupt as error:
        assert str(error) == "SIGTERM"
        struck += 1
    assert threading.active_count() == threads, threading.enumerate()
print(struck)
"""


def test_a_pool_survives_a_signal_at_any_instruction() -> None:
    seed, rounds = random.randrange(2**32), 400
    done = subprocess.run(
        [*HEEDING, sys.executable, "-c", _AT_RANDOM, str(seed), str(rounds)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, f"{seed}: {done.stderr}"
    assert int(done.stdout) > rounds * 0.9, "a wait may have ended before the instruction of that number"


def _program(source: str) -> subprocess.Popen[str]:
    """A program with our handlers of signals, which has printed its first line."""
    program = "from swarmer import interrupts, signals\nsignals.GRACE = 0.5\nsignals.install_handlers()\n"
    program += textwrap.dedent(source)
    process = subprocess.Popen(
        [*HEEDING, sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


def test_what_does_not_notice_a_signal_is_interrupted_after_a_grace() -> None:
    process = _program("""
        import time
        print("begun", flush=True)
        try:
            time.sleep(600)
        except KeyboardInterrupt as error:
            print(error)
    """)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (output, errors) == ("SIGTERM\n", "")


def test_what_is_undone_is_given_all_the_time_it_needs() -> None:
    process = _program("""
        import time
        with interrupts.shielded():
            print("begun", flush=True)
            time.sleep(2)
            print("undone", flush=True)
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (output, errors) == ("undone\ninterrupted\n", "")


def test_a_second_signal_ends_even_that() -> None:
    process = _program("""
        import time
        with interrupts.shielded():
            print("begun", flush=True)
            time.sleep(600)
    """)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.6)  # a second one within half a second is a duplicate
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGHUP
    assert "swarmer gc" in errors


def test_a_block_without_anything_to_clean_up_ends_like_any_other_program() -> None:
    process = _program("""
        import sys
        with signals.default_actions():
            print("begun", flush=True)
            sys.stdin.read()
    """)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert process.returncode == -signal.SIGTERM
    process.communicate()
