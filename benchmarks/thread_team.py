"""What the thread team costs: a call, a phase, waking from sleep; loading code. Needs idle cores.

    python benchmarks/thread_team.py [THREADS]

Times are medians (and minima) in microseconds.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from striate.compiler.codegen import object_code
from striate.compiler.program import Kernel, Pointer, Program, Step
from striate.compiler.target import Target
from striate.runtime import Executable
from striate.runtime.loader import ObjectCode, load

# As many turns of an empty loop as the first constant says.
WORK = """
define void @NAME(ptr %pointers, i64 %chunk, ptr %scratch, i64 %next, ptr %later, i64 %pace) {
  %turns.at = load ptr, ptr %pointers
  %turns.f = load float, ptr %turns.at
  %turns = fptosi float %turns.f to i64
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %i.next, %loop ]
  store volatile i64 %i, ptr %scratch
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %turns
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""


def code(name: str) -> bytes:
    """The kernel above as a relocatable object."""
    return object_code(WORK.replace("NAME", name), Target.named("generic"))


def program(phases: int, chunks: int, turns: int) -> Program:
    """`phases` phases of `chunks` chunks of `turns` turns each, without input or output."""
    kernel = Kernel("work", "by hand", "", "", "", code("work"), 64)
    step = Step("work", 0, chunks, (Pointer("constant", 0, 0),), 0, 0)
    turns_block = np.full(16, turns, np.float32)
    return Program((kernel,), ((step,),) * phases, turns_block, None, 0, (), ())


def times(act: Callable[[], object], repeat: int, pause: float = 0.0) -> list[float]:
    """The times of `act` (microseconds), sorted, with a sleep of `pause` seconds before each."""
    taken = []
    for _ in range(repeat):
        if pause:
            time.sleep(pause)
        start = time.perf_counter()
        act()
        taken.append(1e6 * (time.perf_counter() - start))
    return sorted(taken)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2

    def show(name: str, taken: list[float], less: float = 0.0, over: int = 1) -> float:
        middle = statistics.median(taken)
        print(f"{name:46} {(middle - less) / over:9.3f} {(taken[0] - less) / over:9.3f}")
        return middle

    print(f"{threads} threads; microseconds{'median':>23} {'least':>9}")
    show("a call, one thread, one empty chunk", times(Executable(program(1, 1, 0), 1), 3000))
    one = Executable(program(1, threads, 0), threads)
    call = show("a call, one phase of empty chunks, team awake", times(one, 3000))
    # Empty chunks would be done by one thread before the others look; these take about 0.5 us.
    chunk = statistics.median(times(Executable(program(1000, 1, 2000), 1), 50)) / 1000
    many = times(Executable(program(1000, threads, 2000), threads), 200)
    show("a further phase, beyond its work", many, call + 1000 * chunk, 1000)
    work = program(1, 32 * threads, 20_000)
    alone = show("work of one thread", times(Executable(work, 1), 30))
    shared = Executable(work, threads)
    awake = show("the same by all, team awake", times(shared, 100))
    show("the same by all, team asleep", times(shared, 50, 0.005))
    print(f"{'speedup':46} {alone / awake:9.2f}")
    codes = [ObjectCode(f"k{number}", code(f"k{number}")) for number in range(60)]
    show("loading 60 small kernels", times(lambda: load(codes), 5))


if __name__ == "__main__":
    main()
