"""The thread team: one per process, asleep between runs, shared by all models and callers.

Its threads are Python threads that stay inside one compiled function (`team_work`). The caller of a
run is thread 0 and never needs the others: each chunk is done by whoever comes first.
"""

import collections
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from striate.runtime import team_memory
from striate.runtime.cores import MOST_THREADS
from striate.runtime.memory import address, aligned_bytes
from striate.runtime.mutex import Mutex
from striate.runtime.team_code import TeamCode, system_calls, team_code, yielding

# An idle thread watches for work this long (seconds) before it sleeps. To be woken takes it some 30
# us; a caller that at once runs again, with caches full of other things, is back after 50 to 250.
IDLE_SECONDS = 300e-6
# Within a run it watches for so long; then it offers its core to others so many times (about 1 ms)
# before it sleeps.
SPIN_SECONDS = 30e-6
YIELDS = 1000
# How long to wait for a worker to leave when the team ends (seconds).
_PATIENCE = 1.0


class Job:
    """What a team runs: a block of memory that begins with the job words of `team_memory`.

    `table` is that block (int64, aligned), `threads` how many may take part and `scratch_bytes` the
    memory each of them needs; the team fills in where that memory lies.
    """

    __slots__ = ("__weakref__", "address", "scratch_bytes", "table", "threads", "words")

    def __init__(self, table: NDArray[np.int64], threads: int, scratch_bytes: int) -> None:
        self.table = table
        self.address = address(table)
        self.threads = threads
        self.scratch_bytes = -(-scratch_bytes // 64) * 64
        self.words = table.data.cast("B").cast("q")
        self.words[team_memory.JOB_THREADS] = threads
        self.words[team_memory.JOB_STRIDE] = self.scratch_bytes


class Parking:
    """Where workers sleep, in Python, on systems without futex."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._posts = 0

    def post(self) -> None:
        """Wake everybody."""
        with self._changed:
            self._posts += 1
            self._changed.notify_all()

    def wait(self, seen: int) -> int:
        """Sleep until there have been more than `seen` posts; gives their number."""
        with self._changed:
            self._changed.wait_for(lambda: self._posts > seen)
            return self._posts


class Team:
    """Threads that run jobs together, one job at a time. `sleep_in_python` does without futex."""

    def __init__(self, sleep_in_python: bool = False) -> None:
        self._code = team_code()
        # Zeros that are never touched take no memory: room for all threads there may ever be.
        self._block = aligned_bytes(
            team_memory.SLOTS + MOST_THREADS * team_memory.LINE, team_memory.LINE
        )
        self._context = address(self._block)
        self._scratch = aligned_bytes(0)
        self._scratch_address = address(self._scratch)
        self._wanted = 1
        self._workers: list[threading.Thread] = []
        self._mutex = Mutex()
        self._graves: collections.deque[Job] = collections.deque()
        calls = None if sleep_in_python else system_calls()
        self._parking = Parking() if calls is None else None
        self._words = words = self._block.data.cast("q")
        pause = self._pause()
        words[team_memory.SPINS // 8] = _times(SPIN_SECONDS, pause)
        words[team_memory.IDLE // 8] = _times(IDLE_SECONDS, pause)
        words[team_memory.YIELDS // 8] = YIELDS
        words[team_memory.YIELD // 8] = yielding()
        if calls is not None:
            words[team_memory.SYSCALL // 8] = calls.syscall
            words[team_memory.FUTEX // 8] = calls.futex
            words[team_memory.AFFINITY // 8] = calls.affinity
            self._spread(calls.getcpu)
        self._end = weakref.finalize(
            self, _dismiss, self._code.stop, self._block, self._parking, self._workers
        )

    @property
    def threads(self) -> int:
        """The threads there are, with the caller."""
        return 1 + len(self._workers)

    def run(self, job: Job) -> None:
        """Do all chunks of `job` and return; other callers wait."""
        with self._mutex.lock:
            if job.threads > self._wanted:
                self._hire(job.threads)
            if job.scratch_bytes * job.threads > self._scratch.size:
                # Nobody is in a chunk now, so nobody uses the old scratch memory.
                self._scratch = aligned_bytes(job.scratch_bytes * job.threads)
                self._scratch_address = address(self._scratch)
            job.words[team_memory.JOB_SCRATCH] = self._scratch_address
            if self._parking is not None:
                self._parking.post()
            self._code.run(self._context, job.address)

    def bury(self, job: Job) -> None:
        """Keep the memory of `job`, which nobody will run again, until no worker reads it.

        Takes no lock: it is called by the garbage collector, at any point of any thread.
        """
        self._graves.append(job)
        for _ in range(len(self._graves)):
            try:
                oldest = self._graves.popleft()
            except IndexError:
                return
            if self._code.occupied(self._context, oldest.address, MOST_THREADS):
                self._graves.append(oldest)

    def stop(self) -> None:
        """End the workers; later runs are done by their callers alone."""
        with self._mutex:
            self._wanted = MOST_THREADS
            self._end()

    def forget(self) -> None:
        """After a fork, in the child: there are no workers to end."""
        self._end.detach()

    def _hire(self, threads: int) -> None:
        self._wanted = threads
        for number in range(self.threads, threads):
            worker = threading.Thread(
                target=_work,
                args=(self._code, self._block, number, self._parking),
                name=f"striate-{number}",
                daemon=True,
            )
            try:
                worker.start()
            except RuntimeError as error:
                warnings.warn(
                    f"running on {self.threads} threads instead of {threads}: {error}",
                    RuntimeWarning,
                    stacklevel=4,
                )
                return
            self._workers.append(worker)
            slot = team_memory.SLOTS + number * team_memory.LINE
            self._words[(slot + team_memory.SLOT_THREAD) // 8] = worker.native_id or 0
            self._words[team_memory.WORKERS // 8] = number
        self._words[team_memory.AVOIDED // 8] = -1

    def _spread(self, getcpu: int) -> None:
        """Let runs keep the workers off their caller's core, within the cores allowed now."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) > 1 and max(allowed) < 8 * team_memory.LINE:
            for core in allowed:
                self._block[team_memory.MASK + core // 8] |= np.uint8(1 << core % 8)
            self._words[team_memory.GETCPU // 8] = getcpu

    def _pause(self) -> float:
        """How long (seconds) a pause takes on this CPU: 10 to 140 cycles."""
        count, least = 200, float("inf")
        for _ in range(5):
            start = time.perf_counter()
            self._code.pauses(self._context, count)
            least = min(least, time.perf_counter() - start)
        return least / count


def _times(seconds: float, pause: float) -> int:
    """How many pauses take about as long."""
    return max(10, min(1_000_000, round(seconds / pause)))


def _work(code: TeamCode, block: NDArray[np.uint8], number: int, parking: Parking | None) -> None:
    """A worker's thread. Its arguments keep the code and memory it is in."""
    posts = 0
    while not code.serve(address(block), number) and parking is not None:
        posts = parking.wait(posts)


def _dismiss(
    stop: Callable[[int], None],
    block: NDArray[np.uint8],
    parking: Parking | None,
    workers: Sequence[threading.Thread],
) -> None:
    """Tell the workers to end and see them off, before the interpreter takes their code away."""
    stop(address(block))
    if parking is not None:
        parking.post()
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        if worker is not threading.current_thread():
            worker.join(max(0.0, deadline - time.monotonic()))


_shared: Team | None = None
_shared_mutex = Mutex()


def shared_team() -> Team:
    """The team of this process."""
    global _shared
    team = _shared
    if team is None:
        with _shared_mutex:
            team = _shared = _shared or Team()
    return team


def bury(job: Job) -> None:
    """Give up `job` for good, at any time and in any thread (see `Team.bury`)."""
    team = _shared
    if team is not None:
        team.bury(job)


def _leave_team_behind() -> None:
    """In a forked child the team's threads don't exist: the next run makes a team."""
    global _shared
    if _shared is not None:
        _shared.forget()
        _shared = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_team_behind)
