"""The thread team's machine code, as LLVM IR for any CPU, and the memory it shares with Python.

Chunks are counted through all runs of the team: a run of n chunks takes the next n numbers.
`claim` holds how many are taken and `done` how many are complete, both since the team began;
neither ever falls. So a number is claimed once in the life of the team, by compare-exchange, and a
thread that woke late or lost its core finds `claim` beyond its run's limit and leaves. A phase may
begin when `done` reaches its `gate`: no thread is waited for, only work.

Even threads take the chunks of a step from its front and odd ones from its back, until they meet.
So a core mostly reads what it wrote in the step before, and not what lies in another core's cache.
The low bits of `claim` count the chunks that were taken from the back of the step at hand. A kernel
is told the neighbour that its thread will most likely take next.

A run is open while `epoch` is odd. A worker that joins copies what the run's line holds, puts the
job into its slot and then looks again whether the epoch is still the same; if so, the job's memory
can't go before the slot is empty again (`occupied`). System calls go through addresses that Python
finds.
"""

from striate.runtime.team_cpu import WAKE_BITSET, cpu
from striate.runtime.team_memory import (
    AFFINITY,
    AVOIDED,
    BACK_BITS,
    CLAIM,
    DONE,
    EPOCH,
    FUTEX,
    GETCPU,
    JOB_BEGIN,
    JOB_LIMIT,
    JOB_SCRATCH,
    JOB_STEP,
    JOB_STRIDE,
    JOB_THREADS,
    LINE,
    MASK,
    PARKED,
    RUN,
    SLOT_THREAD,
    SLOTS,
    STEP_END,
    STEP_FIRST,
    STEP_WORDS,
    STOP,
    SYSCALL,
    WORKERS,
    at,
    field,
)
from striate.runtime.team_work import WORK

SYMBOL = "striate_team"
FUNCTIONS = ("serve", "run", "alone", "occupied", "stop", "pauses")


def team_ir(architecture: str) -> str:
    """The whole module for `architecture` (x86_64, aarch64, or any other)."""
    return "\n".join(
        (
            cpu(architecture),
            *WORK,
            _SPREADING,
            _RUNNING,
            _ALONE,
            _KEEPING,
            _table(),
        )
    )


# spread: keep the workers off the caller's core. A kernel that sees no cache shared between cores
# (a virtual machine's, say) wakes a thread on the core that wakes it, where it waits for its turn
# until the load is balanced: a run of 1 ms was over before its second thread began.
_SPREADING = f"""
define internal void @spread(ptr %ctx) {{
{at("avoided.at", "ctx", AVOIDED)}
{at("mask", "ctx", MASK)}
{at("slots", "ctx", SLOTS + SLOT_THREAD)}
  %allowed = alloca [{LINE} x i8], align 8
{field("getcpu", "ctx", GETCPU, "ptr")}
  %unknown = icmp eq ptr %getcpu, null
  br i1 %unknown, label %out, label %ask
ask:
  %cpu = call i32 %getcpu()
  %core = sext i32 %cpu to i64
  %avoided = load i64, ptr %avoided.at
  %same = icmp eq i64 %core, %avoided
  br i1 %same, label %out, label %change
change:
  store i64 %core, ptr %avoided.at
  %core.word = ashr i64 %core, 6
  %core.bit = and i64 %core, 63
  %bit = shl i64 1, %core.bit
  %others = xor i64 %bit, -1
  br label %copy
copy:
  %w = phi i64 [ 0, %change ], [ %w.next, %copy ]
  %from = getelementptr i64, ptr %mask, i64 %w
  %to = getelementptr i64, ptr %allowed, i64 %w
  %all = load i64, ptr %from
  %less = and i64 %all, %others
  %holds = icmp eq i64 %w, %core.word
  %word = select i1 %holds, i64 %less, i64 %all
  store i64 %word, ptr %to
  %w.next = add i64 %w, 1
  %w.more = icmp slt i64 %w.next, {LINE // 8}
  br i1 %w.more, label %copy, label %send
send:
{field("syscall", "ctx", SYSCALL, "ptr")}
{field("affinity", "ctx", AFFINITY)}
{field("workers", "ctx", WORKERS)}
  br label %next
next:
  %i = phi i64 [ 0, %send ], [ %i.next, %set ]
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i, %workers
  br i1 %more, label %set, label %out
set:
  %offset = mul i64 %i.next, {LINE}
  %thread.at = getelementptr i8, ptr %slots, i64 %offset
  %thread = load i64, ptr %thread.at
  call i64 (i64, ...) %syscall(i64 %affinity, i64 %thread, i64 {LINE}, ptr %allowed)
  br label %next
out:
  ret void
}}
"""

# run: open the job to the team, take part as thread 0, and return when all its chunks are done.
_RUNNING = f"""
define internal void @run(ptr %ctx, ptr %job) {{
{at("epoch.at", "ctx", EPOCH)}
{at("claim", "ctx", CLAIM)}
{at("parked", "ctx", PARKED)}
{at("job.at", "ctx", RUN)}
{at("step.at", "ctx", RUN + 8)}
{at("base.at", "ctx", RUN + 16)}
{at("limit.at", "ctx", RUN + 24)}
{at("scratch.at", "ctx", RUN + 32)}
{at("stride.at", "ctx", RUN + 40)}
{at("threads.at", "ctx", RUN + 48)}
{field("step", "job", 8 * JOB_STEP, "ptr")}
{field("begin", "job", 8 * JOB_BEGIN)}
{field("end", "job", 8 * JOB_LIMIT)}
{field("scratch", "job", 8 * JOB_SCRATCH, "ptr")}
{field("stride", "job", 8 * JOB_STRIDE)}
{field("threads", "job", 8 * JOB_THREADS)}
  %chunks = sub i64 %end, %begin
  %nothing = icmp sle i64 %chunks, 0
  br i1 %nothing, label %out, label %open
open:
  %mode = call i32 @flush_denormals()
  %word = load atomic i64, ptr %claim acquire, align 8
  %number = ashr i64 %word, {BACK_BITS}
  %base = sub i64 %number, %begin
  %limit = add i64 %number, %chunks
  fence release
  store atomic ptr %job, ptr %job.at monotonic, align 8
  store atomic ptr %step, ptr %step.at monotonic, align 8
  store atomic i64 %base, ptr %base.at monotonic, align 8
  store atomic i64 %limit, ptr %limit.at monotonic, align 8
  store atomic ptr %scratch, ptr %scratch.at monotonic, align 8
  store atomic i64 %stride, ptr %stride.at monotonic, align 8
  store atomic i64 %threads, ptr %threads.at monotonic, align 8
  %epoch = load atomic i32, ptr %epoch.at monotonic, align 4
  %epoch.open = add i32 %epoch, 1
  %epoch.closed = add i32 %epoch, 2
  store atomic i32 %epoch.open, ptr %epoch.at seq_cst, align 4
  %asleep = load atomic i32, ptr %parked seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  %several = icmp sgt i64 %chunks, 1
  br i1 %several, label %share, label %work
share:
  call void @spread(ptr %ctx)
  br i1 %any, label %wake, label %work
wake:
{field("syscall", "ctx", SYSCALL, "ptr")}
{field("futex", "ctx", FUTEX)}
  %many = icmp ugt i64 %threads, 31
  %shift = select i1 %many, i64 0, i64 %threads
  %bits = shl i64 1, %shift
  %low = sub i64 %bits, 1
  %mask.64 = select i1 %many, i64 -1, i64 %low
  %mask = trunc i64 %mask.64 to i32
  call i64 (i64, ...) %syscall(i64 %futex, ptr %epoch.at, i64 {WAKE_BITSET}, i32 2147483647, \
ptr null, ptr null, i32 %mask)
  br label %work
work:
  call void @walk(ptr %ctx, i64 0, ptr %step, i64 %base, i64 %limit, ptr %scratch)
  call void @await(ptr %ctx, i64 %limit)
  store atomic i32 %epoch.closed, ptr %epoch.at seq_cst, align 4
  call void @restore(i32 %mode)
  br label %out
out:
  ret void
}}
"""

# alone: the same job by the calling thread, without a team.
_ALONE = f"""
define internal void @alone(ptr %job) {{
{field("start", "job", 8 * JOB_STEP, "ptr")}
{field("begin", "job", 8 * JOB_BEGIN)}
{field("limit", "job", 8 * JOB_LIMIT)}
{field("scratch", "job", 8 * JOB_SCRATCH, "ptr")}
  %mode = call i32 @flush_denormals()
  br label %look
look:
  %chunk = phi i64 [ %begin, %0 ], [ %chunk.next, %do ]
  %step.0 = phi ptr [ %start, %0 ], [ %step, %do ]
  %more = icmp slt i64 %chunk, %limit
  br i1 %more, label %seek, label %out
seek:
  %step = phi ptr [ %step.0, %look ], [ %step.next, %skip ]
{field("end", "step", 8 * STEP_END)}
  %here = icmp slt i64 %chunk, %end
  br i1 %here, label %do, label %skip
skip:
  %step.next = getelementptr i8, ptr %step, i64 {8 * STEP_WORDS}
  br label %seek
do:
{field("first", "step", 8 * STEP_FIRST)}
  %piece = sub i64 %chunk, %first
  call void @do(ptr %step, i64 %piece, i64 1, ptr %scratch)
  %chunk.next = add i64 %chunk, 1
  br label %look
out:
  call void @restore(i32 %mode)
  ret void
}}
"""

# occupied: whether a worker may still read the job. stop: end all workers. pauses: to time a pause.
_KEEPING = f"""
define internal i32 @occupied(ptr %ctx, ptr %job, i64 %threads) {{
{at("slots", "ctx", SLOTS)}
  fence seq_cst
  br label %look
look:
  %i = phi i64 [ 0, %0 ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %threads
  br i1 %more, label %check, label %no
check:
  %offset = mul i64 %i, {LINE}
  %slot = getelementptr i8, ptr %slots, i64 %offset
  %held = load atomic ptr, ptr %slot acquire, align 8
  %same = icmp eq ptr %held, %job
  br i1 %same, label %yes, label %next
next:
  %i.next = add i64 %i, 1
  br label %look
yes:
  ret i32 1
no:
  ret i32 0
}}
define internal void @stop(ptr %ctx) {{
{at("epoch.at", "ctx", EPOCH)}
{at("stop.at", "ctx", STOP)}
  store atomic i32 1, ptr %stop.at seq_cst, align 4
  atomicrmw add ptr %epoch.at, i32 2 seq_cst
{field("syscall", "ctx", SYSCALL, "ptr")}
{field("futex", "ctx", FUTEX)}
  %awake.only = icmp eq ptr %syscall, null
  br i1 %awake.only, label %out, label %wake
wake:
  call i64 (i64, ...) %syscall(i64 %futex, ptr %epoch.at, i64 {WAKE_BITSET}, i32 2147483647, \
ptr null, ptr null, i32 -1)
  br label %out
out:
  ret void
}}
define internal void @pauses(ptr %ctx, i64 %times) {{
{at("done", "ctx", DONE)}
  br label %look
look:
  %i = phi i64 [ 0, %0 ], [ %i.next, %look ]
  %ignored = load atomic i64, ptr %done acquire, align 8
  call void @pause()
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %times
  br i1 %more, label %look, label %out
out:
  ret void
}}
"""


def _table() -> str:
    """The one exported function gives the address of the n-th of `FUNCTIONS`."""
    cases = "\n".join(f"    i64 {n}, label %{name}" for n, name in enumerate(FUNCTIONS))
    blocks = "\n".join(f"{name}:\n  ret ptr @{name}" for name in FUNCTIONS)
    return f"""
define ptr @{SYMBOL}(i64 %which) {{
  switch i64 %which, label %none [
{cases}
  ]
none:
  ret ptr null
{blocks}
}}
"""
