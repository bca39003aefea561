"""The thread team: late workers, sleep, forks, exits, crowded machines, systems without futex."""

import gc
import os
import resource
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runtime_kernels import BLOCK, assemble, chain, ramp

from striate import models
from striate.compiler.program import Prefetch
from striate.runtime import team, team_ir, team_memory
from striate.runtime.executable import Executable
from striate.runtime.memory import address
from striate.runtime.team import Job, Team, shared_team
from striate.runtime.team_code import system_calls

HERE = Path(__file__).parent
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
needs_futex = pytest.mark.skipif(system_calls() is None, reason="no futex here")


@pytest.fixture(params=["futex", "python"])
def own_team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """A team of its own as the process's team, on either way of sleeping."""
    made = Team(sleep_in_python=request.param == "python")
    monkeypatch.setattr(team, "_shared", made)
    yield made
    made.stop()
    assert not any(worker.is_alive() for worker in made._workers)


def script(text: str, *arguments: str, seconds: float = 30) -> str:
    """What a process of its own prints; it must end in time and well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_both_ways_of_sleeping_give_the_same(own_team: Team) -> None:
    for threads in (2, 3, 5):
        run = Executable(chain(11, 9, "reverse", 8), threads)
        for turn in range(40):
            np.testing.assert_array_equal(run(ramp(9))[0], ramp(9)[::-1] + 11)
            if turn % 10 == 0:
                time.sleep(0.002)
        assert own_team.threads == threads


def test_workers_take_part(own_team: Team) -> None:
    # A worker that sleeps in Python may come too late for one run, not for all.
    run = Executable(chain(1, 64, "slow", 20_000), 2)
    run(ramp(64))
    (worker,) = own_team._workers
    before = _cpu_seconds(worker)
    for _ in range(20):
        run(ramp(64))
    assert _cpu_seconds(worker) > before


def _cpu_seconds(worker: threading.Thread) -> float:
    assert worker.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(worker.ident))


def test_a_late_worker_claims_nothing_of_a_newer_run(own_team: Team) -> None:
    """A worker that still holds an old run's numbers must find nothing to do."""
    run = Executable(chain(1, 4), 2)
    run(ramp(4))
    words, line = own_team._words, team_memory.RUN // 8
    base, limit = words[line + 2], words[line + 3]
    run(ramp(4))
    claim, done = _taken(own_team), words[team_memory.DONE // 8]
    (y,) = run(ramp(4))
    y[...] = 0
    # The old run once more, as an epoch of its own: it is over, so no chunk may be done.
    words[line + 2], words[line + 3] = base, limit
    _epoch(own_team)[0] += 1
    _wake(own_team)
    time.sleep(0.01)
    _epoch(own_team)[0] += 1
    assert _taken(own_team) == claim + 4
    assert words[team_memory.DONE // 8] == done + 4
    assert not y.any()
    np.testing.assert_array_equal(run(ramp(4))[0], ramp(4) + 1)


def _epoch(of: Team) -> memoryview:
    return of._block.data[:4].cast("i")


def _taken(of: Team) -> int:
    """How many chunks have been claimed since the team began."""
    return of._words[team_memory.CLAIM // 8] >> team_memory.BACK_BITS


def _wake(of: Team) -> None:
    """Make workers look: new ones start awake."""
    of._hire(of.threads + 1)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_even_threads_take_the_front_and_odd_ones_the_back(threads: int, steps: int) -> None:
    """Of every step, whenever the threads come and however many are awake; they know their next."""
    share, helped, runs = 13, False, 0
    run = Executable(chain(5, steps * share, "sign", 3000, steps), threads)
    # On a busy machine it takes a while until another thread comes in time.
    deadline = time.monotonic() + 60
    while runs < 30 or (not helped and time.monotonic() < deadline):
        runs += 1
        (y,) = run(np.zeros((steps * share, BLOCK), np.float32))
        # Each block tells the scratch memory, and so the thread, of the chunk that wrote it.
        thread = (y.view(np.int64)[:, 0] - shared_team()._scratch_address) // 64
        assert set(thread) <= set(range(threads))
        odd = (thread % 2).reshape(steps, share)
        np.testing.assert_array_equal(odd, np.sort(odd, axis=1))
        following = np.clip(np.arange(share) + 1 - 2 * odd, 0, share - 1)
        np.testing.assert_array_equal(y.view(np.int64)[:, 1].reshape(steps, share), following)
        helped |= bool(odd.any()) and not odd.all()
    assert helped


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_chunk_has_a_share_of_what_later_steps_read(threads: int) -> None:
    program = chain(3, 26, "sign", 1, 2)
    first, second = program.phases[-1]
    told = (replace(first, later=Prefetch(64, 128, 7)), replace(second, later=Prefetch(0, 192, 9)))
    run = Executable(replace(program, phases=(*program.phases[:-1], told)), threads)
    (y,) = run(np.zeros((26, BLOCK), np.float32))
    chunk, start = np.arange(13), address(run.constants)
    later = np.concatenate([start + 64 + 128 * chunk, start + 192 * chunk])
    np.testing.assert_array_equal(y.view(np.int64)[:, 2], later)
    np.testing.assert_array_equal(y.view(np.int64)[:, 3], np.repeat([7, 9], 13))


def test_more_chunks_from_the_back_than_can_be_counted(own_team: Team) -> None:
    chunks = 3 * team_memory.MOST_BACK
    run = Executable(chain(1, chunks), 2)
    x = ramp(chunks)
    for _ in range(5):
        np.testing.assert_array_equal(run(x)[0], x + 1)


def test_a_worker_says_which_job_it_reads(own_team: Team) -> None:
    run = Executable(chain(1, 64, "slow", 300_000), 2)
    slot = (team_memory.SLOTS + team_memory.LINE) // 8
    seen: set[int] = set()
    for _ in range(20):
        caller = threading.Thread(target=run, args=(ramp(64),))
        caller.start()
        while caller.is_alive():
            seen.add(own_team._words[slot])
            time.sleep(0.0005)
        if run._job.address in seen:
            break
    time.sleep(0.01)
    assert run._job.address in seen
    assert own_team._words[slot] == 0


def test_memory_that_a_worker_may_read_is_kept(own_team: Team) -> None:
    held = Job(np.zeros(16, np.int64), 1, 0)
    other = Job(np.zeros(16, np.int64), 1, 0)
    kept, freed = weakref.ref(held), weakref.ref(other)
    slot = (team_memory.SLOTS + 9 * team_memory.LINE) // 8
    own_team._words[slot] = held.address
    own_team.bury(held)
    own_team.bury(other)
    del held, other
    gc.collect()
    assert kept() is not None
    assert freed() is None
    own_team._words[slot] = 0
    own_team.bury(Job(np.zeros(16, np.int64), 1, 0))
    gc.collect()
    assert kept() is None


def test_programs_come_and_go_under_load() -> None:
    stop = threading.Event()
    wrong: list[str] = []
    base = [chain(phases, 5, symbol=f"go_{phases}") for phases in range(1, 9)]

    def churn() -> None:
        while not stop.is_set():
            for phases, program in enumerate(base, 1):
                if not (Executable(program, 7)(ramp(5))[0] == ramp(5) + phases).all():
                    wrong.append("churn")

    churner = threading.Thread(target=churn)
    churner.start()
    steady = Executable(chain(20, 9, "reverse", 8), 3)
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        if not (steady(ramp(9))[0] == ramp(9) + 20).all():
            wrong.append("steady")
        gc.collect(0)
    stop.set()
    churner.join(20)
    assert not churner.is_alive()
    assert not wrong
    assert len(shared_team()._graves) < 50


def test_waiting_for_a_long_chunk_is_sleep(own_team: Team) -> None:
    """Three long chunks for two threads: who has none left must not burn its core."""
    one = Executable(chain(1, 3, "slow", 2_000_000), 1)
    start = time.perf_counter()
    one(ramp(3))
    alone = time.perf_counter() - start
    run = Executable(chain(4, 3, "slow", 2_000_000), 2)
    before, switches = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    np.testing.assert_array_equal(run(ramp(3))[0], ramp(3) + 4)
    if own_team._parking is None:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw > switches
        assert time.process_time() - before < 4 * alone * 1.6 + 0.03


def test_an_idle_team_uses_no_cpu(own_team: Team) -> None:
    run = Executable(chain(3, 8), 4)
    for _ in range(10):
        run(ramp(8))
    time.sleep(0.02)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.01


@needs_futex
def test_workers_are_kept_off_the_callers_core() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    run = Executable(chain(3, 8), 2)
    # The team that this makes, if there is none, may use all cores.
    run(ramp(8))
    own = os.sched_getaffinity(0)
    try:
        for core in sorted(own)[:2]:
            os.sched_setaffinity(0, {core})
            np.testing.assert_array_equal(run(ramp(8))[0], ramp(8) + 3)
            worker = shared_team()._workers[0]
            assert worker.native_id is not None
            assert core not in os.sched_getaffinity(worker.native_id)
    finally:
        os.sched_setaffinity(0, own)


BUSY = "import time\nend = time.monotonic() + 8\nwhile time.monotonic() < end: pass"


def test_a_crowded_machine_slows_but_does_not_stop_the_team() -> None:
    run = Executable(chain(50, 4, "slow", 1000), 2)
    x = ramp(4)
    crowd = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        time.sleep(0.2)
        start, times = time.perf_counter(), []
        while time.perf_counter() - start < 0.8:
            begin = time.perf_counter()
            np.testing.assert_array_equal(run(x)[0], x + 50)
            times.append(time.perf_counter() - begin)
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    # 50 phases take 0.3 ms alone; a core is given back after some ms at the most.
    assert np.median(times) < 0.02
    assert max(times) < 0.6


def test_a_network_among_two_busy_processes_does_not_collapse() -> None:
    """Each thread has about half a core then; waiting for one another must not cost more."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    network = models.create("squeezenet1_1").compile((1, 160, 160, 3), threads=2)
    image = np.random.default_rng(0).standard_normal((1, 160, 160, 3), np.float32)

    def median(seconds: float) -> float:
        times: list[float] = []
        while sum(times) < seconds:
            start = time.perf_counter()
            network(image)
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    median(0.1)
    quiet = median(0.5)
    crowd = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        time.sleep(0.2)
        crowded = median(1.5)
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    assert crowded < 6 * quiet


FORK = """
import os, sys, threading
import numpy as np
from runtime_kernels import chain, ramp
from striate.runtime.executable import Executable
from striate.runtime.team import shared_team
run = Executable(chain(9, 6, "reverse", 5), 3)
other = Executable(chain(30, 6, "slow", 300), 2)
expected = ramp(6)[::-1] + 9
assert (run(ramp(6))[0] == expected).all()
stop = threading.Event()
def load():
    while not stop.is_set():
        other(ramp(6)); run(ramp(6))
loader = threading.Thread(target=load)
loader.start()
for turn in range(12):
    child = os.fork()
    if child == 0:
        good = all((run(ramp(6))[0] == expected).all() for _ in range(5))
        good &= (other(ramp(6))[0] == ramp(6) + 30).all() and shared_team().threads == 3
        if turn % 2:
            os._exit(0 if good else 1)
        sys.exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0, "child failed"
    assert (run(ramp(6))[0] == expected).all()
stop.set()
loader.join()
print("well")
"""


@needs_fork
def test_a_forked_child_makes_its_own_team() -> None:
    assert script(FORK, seconds=40).strip() == "well"


EXIT = """
import sys, threading
from runtime_kernels import chain, ramp
from striate.runtime import team
from striate.runtime.executable import Executable
if sys.argv[1] == "python":
    team._shared = team.Team(sleep_in_python=True)
run = Executable(chain(20, 6, "slow", 100), 4)
run(ramp(6))
if sys.argv[2] == "running":
    def load():
        while True:
            run(ramp(6))
    threading.Thread(target=load, daemon=True).start()
print("end")
"""


@pytest.mark.parametrize("sleep", ["futex", "python"])
@pytest.mark.parametrize("state", ["idle", "running"])
def test_the_interpreter_ends(sleep: str, state: str) -> None:
    assert script(EXIT, sleep, state, seconds=10).strip() == "end"


def test_a_stopped_team_still_answers(own_team: Team) -> None:
    run = Executable(chain(5, 6), 3)
    run(ramp(6))
    own_team.stop()
    assert not any(worker.is_alive() for worker in own_team._workers)
    np.testing.assert_array_equal(run(ramp(6))[0], ramp(6) + 5)


def test_threads_that_cannot_start_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Team()
    monkeypatch.setattr(team, "_shared", made)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    run = Executable(chain(5, 6), 3)
    with pytest.warns(RuntimeWarning, match="on 1 threads instead of 3: can't start new thread"):
        np.testing.assert_array_equal(run(ramp(6))[0], ramp(6) + 5)
    np.testing.assert_array_equal(run(ramp(6))[0], ramp(6) + 5)


@pytest.mark.parametrize(
    ("architecture", "triple"),
    [
        ("x86_64", "x86_64-unknown-linux-gnu"),
        ("aarch64", "aarch64-unknown-linux-gnu"),
        ("aarch64", "arm64-apple-darwin"),
        ("x86_64", "x86_64-pc-windows-msvc"),
        ("ppc64le", "powerpc64le-unknown-linux-gnu"),
    ],
)
def test_the_team_compiles_for_other_machines(architecture: str, triple: str) -> None:
    assert len(assemble(team_ir.team_ir(architecture), triple)) > 1000


def test_phases_follow_each_other_without_delay() -> None:
    """0.1 to 0.2 us a phase on two free cores; here only that it is no system call's business."""
    many, one = Executable(chain(2000, 2), 2), Executable(chain(1, 2), 2)

    def least(run: Executable) -> float:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            run(ramp(2))
            times.append(time.perf_counter() - start)
        return min(times)

    assert (least(many) - least(one)) / 2000 < 2e-6
