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

import platform

# Offsets in bytes. What different threads write lies on different pairs of cache lines.
LINE = 128
EPOCH = 0
CLAIM = 1 * LINE
DONE = 2 * LINE
SLEEPERS = 3 * LINE
PARKED = 4 * LINE
RUN = 5 * LINE
STOP = 6 * LINE
SPINS = 7 * LINE
YIELDS = SPINS + 8
SYSCALL = SPINS + 16
FUTEX = SPINS + 24
YIELD = SPINS + 32
GETCPU = SPINS + 40
AFFINITY = SPINS + 48
WORKERS = SPINS + 56
AVOIDED = SPINS + 64
MASK = 8 * LINE
SLOTS = 9 * LINE
# Within a slot, behind the job: the system's number of the thread.
SLOT_THREAD = 8

# A job: six words that say what to run, then the steps' records.
JOB_STEP, JOB_BEGIN, JOB_LIMIT, JOB_SCRATCH, JOB_STRIDE, JOB_THREADS = range(6)
JOB_WORDS = 8
STEP_FUNCTION, STEP_POINTERS, STEP_FIRST, STEP_END, STEP_GATE, STEP_PHASE_END = range(6)
STEP_WORDS = 8

# The word `claim`: how many chunks are taken, above how many of its step from the back.
BACK_BITS = 16
MOST_BACK = (1 << BACK_BITS) - 1

SYMBOL = "striate_team"
FUNCTIONS = ("serve", "run", "alone", "occupied", "stop", "pauses")

# The numbers of Linux's system calls futex and sched_setaffinity by machine.
SYSTEM_CALLS = {"x86_64": (202, 203), "aarch64": (98, 122)}
_WAIT, _WAKE, _WAIT_BITSET, _WAKE_BITSET = 128, 129, 137, 138
# Rounding to nearest, no traps, denormals read and written as zero: they run 40 times slower.
_MXCSR = 0x9FC0


def machine() -> str:
    """This CPU's architecture in one spelling."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def team_ir(architecture: str) -> str:
    """The whole module for `architecture` (x86_64, aarch64, or any other)."""
    return "\n".join(
        (
            _cpu(architecture),
            _WAITING,
            _WITHIN,
            _WALKING,
            _JOINING,
            _SERVING,
            _SPREADING,
            _RUNNING,
            _ALONE,
            _KEEPING,
            _table(),
        )
    )


def _at(name: str, base: str, offset: int) -> str:
    """The address `offset` bytes behind `base`, as %name."""
    return f"  %{name} = getelementptr i8, ptr %{base}, i64 {offset}"


def _field(name: str, base: str, offset: int, kind: str = "i64") -> str:
    """What lies `offset` bytes behind `base`, as %name."""
    return f"{_at(f'{base}.{name}', base, offset)}\n  %{name} = load {kind}, ptr %{base}.{name}"


def _cpu(architecture: str) -> str:
    """What depends on the CPU: a pause in a waiting loop, and the treatment of denormals."""
    if architecture == "x86_64":
        return f"""
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @pause() alwaysinline {{
  call void @llvm.x86.sse2.pause()
  ret void
}}
define internal i32 @flush_denormals() {{
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  store i32 {_MXCSR}, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %mode = load i32, ptr %old
  ret i32 %mode
}}
define internal void @restore(i32 %mode) {{
  %old = alloca i32
  store i32 %mode, ptr %old
  call void @llvm.x86.sse.ldmxcsr(ptr %old)
  ret void
}}
"""
    # On Arm `yield` does nothing; a barrier for instructions waits about as long as x86's pause.
    arm = architecture == "aarch64"
    declaration = "declare void @llvm.aarch64.isb(i32)" if arm else ""
    pause = "call void @llvm.aarch64.isb(i32 15)" if arm else ""
    return f"""
{declaration}
define internal void @pause() alwaysinline {{
  {pause}
  ret void
}}
define internal i32 @flush_denormals() {{
  ret i32 0
}}
define internal void @restore(i32 %mode) {{
  ret void
}}
"""


# await: until `done` reaches the target. Spin, then let other processes run, then sleep.
_WAITING = f"""
define internal void @await(ptr %ctx, i64 %target) {{
{_at("done", "ctx", DONE)}
{_at("sleepers", "ctx", SLEEPERS)}
{_field("spins", "ctx", SPINS)}
{_field("yields", "ctx", YIELDS)}
{_field("syscall", "ctx", SYSCALL, "ptr")}
{_field("futex", "ctx", FUTEX)}
{_field("yield", "ctx", YIELD, "ptr")}
  %awake.only = icmp eq ptr %syscall, null
  %no.yield = icmp eq ptr %yield, null
  br label %spin
spin:
  %i = phi i64 [ 0, %0 ], [ %i.next, %again ]
  %a = load atomic i64, ptr %done acquire, align 8
  %a.ok = icmp sge i64 %a, %target
  br i1 %a.ok, label %out, label %again
again:
  call void @pause()
  %i.next = add i64 %i, 1
  %spinning = icmp ult i64 %i.next, %spins
  br i1 %spinning, label %spin, label %give.way
give.way:
  %j = phi i64 [ 0, %again ], [ %j.next, %gave ]
  %b = load atomic i64, ptr %done acquire, align 8
  %b.ok = icmp sge i64 %b, %target
  br i1 %b.ok, label %out, label %give
give:
  br i1 %no.yield, label %rest, label %yield.now
yield.now:
  call i32 %yield()
  br label %gave
rest:
  call void @pause()
  br label %gave
gave:
  %j.next = add i64 %j, 1
  %j.on = icmp ult i64 %j.next, %yields
  %on = or i1 %j.on, %awake.only
  br i1 %on, label %give.way, label %sleep
sleep:
  atomicrmw add ptr %sleepers, i32 1 seq_cst
  %c = load atomic i64, ptr %done seq_cst, align 8
  %c.ok = icmp sge i64 %c, %target
  br i1 %c.ok, label %wake, label %wait
wait:
  %word = trunc i64 %c to i32
  call i64 (i64, ...) %syscall(i64 %futex, ptr %done, i64 {_WAIT}, i32 %word, ptr null)
  br label %wake
wake:
  atomicrmw sub ptr %sleepers, i32 1 seq_cst
  %d = load atomic i64, ptr %done acquire, align 8
  %d.ok = icmp sge i64 %d, %target
  br i1 %d.ok, label %out, label %sleep
out:
  ret void
}}
"""


# within: the number of the chunk nearest to %number that a step of so many %chunks has.
_WITHIN = """
define internal i64 @within(i64 %number, i64 %chunks) alwaysinline {
  %last = sub i64 %chunks, 1
  %low = call i64 @llvm.smax.i64(i64 %number, i64 0)
  %found = call i64 @llvm.smin.i64(i64 %low, i64 %last)
  ret i64 %found
}
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
"""

# walk: claim and do chunks from the step at %start on, until all below the limit are taken.
_WALKING = f"""
define internal void @walk(ptr %ctx, i64 %thread, ptr %start, i64 %base, i64 %limit, \
ptr %scratch) {{
{_at("claim", "ctx", CLAIM)}
{_at("done", "ctx", DONE)}
{_at("sleepers", "ctx", SLEEPERS)}
  %odd = trunc i64 %thread to i1
  br label %look
look:
  %step.0 = phi ptr [ %start, %0 ], [ %step, %hold ], [ %step, %take ], [ %step, %did ], \
[ %step, %announce ], [ %step, %wake ]
  %word = load atomic i64, ptr %claim acquire, align 8
  %number = ashr i64 %word, {BACK_BITS}
  %over = icmp sge i64 %number, %limit
  br i1 %over, label %out, label %within
within:
  %chunk = sub i64 %number, %base
  br label %seek
seek:
  %step = phi ptr [ %step.0, %within ], [ %step.next, %skip ]
{_field("end", "step", 8 * STEP_END)}
  %here = icmp slt i64 %chunk, %end
  br i1 %here, label %found, label %skip
skip:
  %step.next = getelementptr i8, ptr %step, i64 {8 * STEP_WORDS}
  br label %seek
found:
{_field("gate", "step", 8 * STEP_GATE)}
  %gate.number = add i64 %gate, %base
  %finished = load atomic i64, ptr %done acquire, align 8
  %open = icmp sge i64 %finished, %gate.number
  br i1 %open, label %take, label %hold
hold:
  call void @await(ptr %ctx, i64 %gate.number)
  br label %look
take:
{_field("first", "step", 8 * STEP_FIRST)}
  %untouched = icmp eq i64 %chunk, %first
  %back.kept = and i64 %word, {MOST_BACK}
  %back = select i1 %untouched, i64 0, i64 %back.kept
  %back.fits = icmp ult i64 %back, {MOST_BACK}
  %from.back = and i1 %odd, %back.fits
  %back.more = zext i1 %from.back to i64
  %back.next = add i64 %back, %back.more
  %number.next = add i64 %number, 1
  %number.high = shl i64 %number.next, {BACK_BITS}
  %word.next = or i64 %number.high, %back.next
  %swap = cmpxchg ptr %claim, i64 %word, i64 %word.next acq_rel monotonic
  %mine = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %mine, label %do, label %look
do:
{_field("function", "step", 8 * STEP_FUNCTION, "ptr")}
{_field("pointers", "step", 8 * STEP_POINTERS, "ptr")}
{_field("phase.end", "step", 8 * STEP_PHASE_END)}
  %place = select i1 %from.back, i64 %end, i64 %chunk
  %place.in.step = sub i64 %place, %first
  %piece = sub i64 %place.in.step, %back.next
  %direction = select i1 %from.back, i64 -1, i64 1
  %following = add i64 %piece, %direction
  %chunks = sub i64 %end, %first
  %next = call i64 @within(i64 %following, i64 %chunks)
  call void %function(ptr %pointers, i64 %piece, ptr %scratch, i64 %next)
  %last.number = add i64 %phase.end, %base
  %before = atomicrmw add ptr %done, i64 1 seq_cst
  br label %did
did:
  %after = add i64 %before, 1
  %phase.over = icmp eq i64 %after, %last.number
  br i1 %phase.over, label %announce, label %look
announce:
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %look
wake:
{_field("syscall", "ctx", SYSCALL, "ptr")}
{_field("futex", "ctx", FUTEX)}
  call i64 (i64, ...) %syscall(i64 %futex, ptr %done, i64 {_WAKE}, i32 2147483647)
  br label %look
out:
  ret void
}}
"""


# join: take part in the run that opened with %epoch, if it is still open and wants this thread.
_JOINING = f"""
define internal void @join(ptr %ctx, i64 %thread, i32 %epoch) {{
{_at("epoch.at", "ctx", EPOCH)}
{_at("job.at", "ctx", RUN)}
{_at("step.at", "ctx", RUN + 8)}
{_at("base.at", "ctx", RUN + 16)}
{_at("limit.at", "ctx", RUN + 24)}
{_at("scratch.at", "ctx", RUN + 32)}
{_at("stride.at", "ctx", RUN + 40)}
{_at("threads.at", "ctx", RUN + 48)}
{_at("slots", "ctx", SLOTS)}
  %slot.offset = mul i64 %thread, {LINE}
  %slot = getelementptr i8, ptr %slots, i64 %slot.offset
  %job = load atomic ptr, ptr %job.at acquire, align 8
  %step = load atomic ptr, ptr %step.at acquire, align 8
  %base = load atomic i64, ptr %base.at acquire, align 8
  %limit = load atomic i64, ptr %limit.at acquire, align 8
  %scratch = load atomic ptr, ptr %scratch.at acquire, align 8
  %stride = load atomic i64, ptr %stride.at acquire, align 8
  %threads = load atomic i64, ptr %threads.at acquire, align 8
  store atomic ptr %job, ptr %slot seq_cst, align 8
  %now = load atomic i32, ptr %epoch.at seq_cst, align 4
  %same = icmp eq i32 %now, %epoch
  %wanted = icmp slt i64 %thread, %threads
  %both = and i1 %same, %wanted
  br i1 %both, label %enter, label %leave
enter:
  %scratch.offset = mul i64 %thread, %stride
  %mine = getelementptr i8, ptr %scratch, i64 %scratch.offset
  call void @walk(ptr %ctx, i64 %thread, ptr %step, i64 %base, i64 %limit, ptr %mine)
  br label %leave
leave:
  store atomic ptr null, ptr %slot release, align 8
  ret void
}}
"""

# serve: a worker's life. Gives 1 when told to stop; 0 when idle where threads can't sleep here.
_SERVING = f"""
define internal i32 @serve(ptr %ctx, i64 %thread) {{
{_at("epoch.at", "ctx", EPOCH)}
{_at("parked", "ctx", PARKED)}
{_at("stop.at", "ctx", STOP)}
{_field("spins", "ctx", SPINS)}
{_field("syscall", "ctx", SYSCALL, "ptr")}
{_field("futex", "ctx", FUTEX)}
  %awake.only = icmp eq ptr %syscall, null
  %big = icmp ugt i64 %thread, 31
  %bit = select i1 %big, i64 31, i64 %thread
  %bit.32 = trunc i64 %bit to i32
  %mask = shl i32 1, %bit.32
  %mode = call i32 @flush_denormals()
  br label %look
look:
  %seen = phi i32 [ -2, %0 ], [ %epoch, %news ], [ %epoch, %joined ], \
[ %seen, %spin ], [ %seen, %park ]
  %i = phi i64 [ 0, %0 ], [ 0, %news ], [ 0, %joined ], [ %i.next, %spin ], [ 0, %park ]
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %out, label %check
check:
  %epoch = load atomic i32, ptr %epoch.at acquire, align 4
  %changed = icmp ne i32 %epoch, %seen
  br i1 %changed, label %news, label %idle
news:
  %odd = trunc i32 %epoch to i1
  br i1 %odd, label %joined, label %look
joined:
  call void @join(ptr %ctx, i64 %thread, i32 %epoch)
  br label %look
idle:
  %i.next = add i64 %i, 1
  %spinning = icmp ult i64 %i.next, %spins
  br i1 %spinning, label %spin, label %tired
spin:
  call void @pause()
  br label %look
tired:
  br i1 %awake.only, label %out, label %park
park:
  atomicrmw add ptr %parked, i32 1 seq_cst
  call i64 (i64, ...) %syscall(i64 %futex, ptr %epoch.at, i64 {_WAIT_BITSET}, i32 %seen, ptr null, \
ptr null, i32 %mask)
  atomicrmw sub ptr %parked, i32 1 seq_cst
  br label %look
out:
  %answer = phi i32 [ 1, %look ], [ 0, %tired ]
  call void @restore(i32 %mode)
  ret i32 %answer
}}
"""

# spread: keep the workers off the caller's core. A kernel that sees no cache shared between cores
# (a virtual machine's, say) wakes a thread on the core that wakes it, where it waits for its turn
# until the load is balanced: a run of 1 ms was over before its second thread began.
_SPREADING = f"""
define internal void @spread(ptr %ctx) {{
{_at("avoided.at", "ctx", AVOIDED)}
{_at("mask", "ctx", MASK)}
{_at("slots", "ctx", SLOTS + SLOT_THREAD)}
  %allowed = alloca [{LINE} x i8], align 8
{_field("getcpu", "ctx", GETCPU, "ptr")}
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
{_field("syscall", "ctx", SYSCALL, "ptr")}
{_field("affinity", "ctx", AFFINITY)}
{_field("workers", "ctx", WORKERS)}
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
{_at("epoch.at", "ctx", EPOCH)}
{_at("claim", "ctx", CLAIM)}
{_at("parked", "ctx", PARKED)}
{_at("job.at", "ctx", RUN)}
{_at("step.at", "ctx", RUN + 8)}
{_at("base.at", "ctx", RUN + 16)}
{_at("limit.at", "ctx", RUN + 24)}
{_at("scratch.at", "ctx", RUN + 32)}
{_at("stride.at", "ctx", RUN + 40)}
{_at("threads.at", "ctx", RUN + 48)}
{_field("step", "job", 8 * JOB_STEP, "ptr")}
{_field("begin", "job", 8 * JOB_BEGIN)}
{_field("end", "job", 8 * JOB_LIMIT)}
{_field("scratch", "job", 8 * JOB_SCRATCH, "ptr")}
{_field("stride", "job", 8 * JOB_STRIDE)}
{_field("threads", "job", 8 * JOB_THREADS)}
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
{_field("syscall", "ctx", SYSCALL, "ptr")}
{_field("futex", "ctx", FUTEX)}
  %many = icmp ugt i64 %threads, 31
  %shift = select i1 %many, i64 0, i64 %threads
  %bits = shl i64 1, %shift
  %low = sub i64 %bits, 1
  %mask.64 = select i1 %many, i64 -1, i64 %low
  %mask = trunc i64 %mask.64 to i32
  call i64 (i64, ...) %syscall(i64 %futex, ptr %epoch.at, i64 {_WAKE_BITSET}, i32 2147483647, \
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
{_field("start", "job", 8 * JOB_STEP, "ptr")}
{_field("begin", "job", 8 * JOB_BEGIN)}
{_field("limit", "job", 8 * JOB_LIMIT)}
{_field("scratch", "job", 8 * JOB_SCRATCH, "ptr")}
  %mode = call i32 @flush_denormals()
  br label %look
look:
  %chunk = phi i64 [ %begin, %0 ], [ %chunk.next, %do ]
  %step.0 = phi ptr [ %start, %0 ], [ %step, %do ]
  %more = icmp slt i64 %chunk, %limit
  br i1 %more, label %seek, label %out
seek:
  %step = phi ptr [ %step.0, %look ], [ %step.next, %skip ]
{_field("end", "step", 8 * STEP_END)}
  %here = icmp slt i64 %chunk, %end
  br i1 %here, label %do, label %skip
skip:
  %step.next = getelementptr i8, ptr %step, i64 {8 * STEP_WORDS}
  br label %seek
do:
{_field("function", "step", 8 * STEP_FUNCTION, "ptr")}
{_field("pointers", "step", 8 * STEP_POINTERS, "ptr")}
{_field("first", "step", 8 * STEP_FIRST)}
  %piece = sub i64 %chunk, %first
  %following = add i64 %piece, 1
  %chunks = sub i64 %end, %first
  %next = call i64 @within(i64 %following, i64 %chunks)
  call void %function(ptr %pointers, i64 %piece, ptr %scratch, i64 %next)
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
{_at("slots", "ctx", SLOTS)}
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
{_at("epoch.at", "ctx", EPOCH)}
{_at("stop.at", "ctx", STOP)}
  store atomic i32 1, ptr %stop.at seq_cst, align 4
  atomicrmw add ptr %epoch.at, i32 2 seq_cst
{_field("syscall", "ctx", SYSCALL, "ptr")}
{_field("futex", "ctx", FUTEX)}
  %awake.only = icmp eq ptr %syscall, null
  br i1 %awake.only, label %out, label %wake
wake:
  call i64 (i64, ...) %syscall(i64 %futex, ptr %epoch.at, i64 {_WAKE_BITSET}, i32 2147483647, \
ptr null, ptr null, i32 -1)
  br label %out
out:
  ret void
}}
define internal void @pauses(ptr %ctx, i64 %times) {{
{_at("done", "ctx", DONE)}
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
