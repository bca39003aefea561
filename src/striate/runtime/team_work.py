"""What a thread of the team does, as LLVM IR: wait, claim and do chunks, join runs, serve."""

from striate.runtime.team_cpu import WAIT, WAIT_BITSET, WAKE
from striate.runtime.team_memory import (
    BACK_BITS,
    CLAIM,
    DONE,
    EPOCH,
    FUTEX,
    IDLE,
    LINE,
    MOST_BACK,
    PARKED,
    RUN,
    SLEEPERS,
    SLOTS,
    SPINS,
    STEP_END,
    STEP_FIRST,
    STEP_FUNCTION,
    STEP_GATE,
    STEP_LATER,
    STEP_PACE,
    STEP_PHASE_END,
    STEP_POINTERS,
    STEP_SHARE,
    STEP_WORDS,
    STOP,
    SYSCALL,
    YIELD,
    YIELDS,
    at,
    field,
)

# await: until `done` reaches the target. Spin, then let other processes run, then sleep.
_WAITING = f"""
define internal void @await(ptr %ctx, i64 %target) {{
{at("done", "ctx", DONE)}
{at("sleepers", "ctx", SLEEPERS)}
{field("spins", "ctx", SPINS)}
{field("yields", "ctx", YIELDS)}
{field("syscall", "ctx", SYSCALL, "ptr")}
{field("futex", "ctx", FUTEX)}
{field("yield", "ctx", YIELD, "ptr")}
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
  call i64 (i64, ...) %syscall(i64 %futex, ptr %done, i64 {WAIT}, i32 %word, ptr null)
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


# do: the chunk %piece of a step, before the one in that direction, or itself if it has none.
_DOING = f"""
define internal void @do(ptr %step, i64 %piece, i64 %direction, ptr %scratch) alwaysinline {{
{field("function", "step", 8 * STEP_FUNCTION, "ptr")}
{field("pointers", "step", 8 * STEP_POINTERS, "ptr")}
{field("first", "step", 8 * STEP_FIRST)}
{field("end", "step", 8 * STEP_END)}
{field("later", "step", 8 * STEP_LATER, "ptr")}
{field("share", "step", 8 * STEP_SHARE)}
{field("pace", "step", 8 * STEP_PACE)}
  %following = add i64 %piece, %direction
  %low = call i64 @llvm.smax.i64(i64 %following, i64 0)
  %chunks = sub i64 %end, %first
  %last = sub i64 %chunks, 1
  %next = call i64 @llvm.smin.i64(i64 %low, i64 %last)
  %shares = mul i64 %share, %piece
  %own = getelementptr i8, ptr %later, i64 %shares
  call void %function(ptr %pointers, i64 %piece, ptr %scratch, i64 %next, ptr %own, i64 %pace)
  ret void
}}
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
"""

# walk: claim and do chunks from the step at %start on, until all below the limit are taken.
_WALKING = f"""
define internal void @walk(ptr %ctx, i64 %thread, ptr %start, i64 %base, i64 %limit, \
ptr %scratch) {{
{at("claim", "ctx", CLAIM)}
{at("done", "ctx", DONE)}
{at("sleepers", "ctx", SLEEPERS)}
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
{field("end", "step", 8 * STEP_END)}
  %here = icmp slt i64 %chunk, %end
  br i1 %here, label %found, label %skip
skip:
  %step.next = getelementptr i8, ptr %step, i64 {8 * STEP_WORDS}
  br label %seek
found:
{field("gate", "step", 8 * STEP_GATE)}
  %gate.number = add i64 %gate, %base
  %finished = load atomic i64, ptr %done acquire, align 8
  %open = icmp sge i64 %finished, %gate.number
  br i1 %open, label %take, label %hold
hold:
  call void @await(ptr %ctx, i64 %gate.number)
  br label %look
take:
{field("first", "step", 8 * STEP_FIRST)}
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
{field("phase.end", "step", 8 * STEP_PHASE_END)}
  %place = select i1 %from.back, i64 %end, i64 %chunk
  %place.in.step = sub i64 %place, %first
  %piece = sub i64 %place.in.step, %back.next
  %direction = select i1 %from.back, i64 -1, i64 1
  call void @do(ptr %step, i64 %piece, i64 %direction, ptr %scratch)
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
{field("syscall", "ctx", SYSCALL, "ptr")}
{field("futex", "ctx", FUTEX)}
  call i64 (i64, ...) %syscall(i64 %futex, ptr %done, i64 {WAKE}, i32 2147483647)
  br label %look
out:
  ret void
}}
"""


# join: take part in the run that opened with %epoch, if it is still open and wants this thread.
_JOINING = f"""
define internal void @join(ptr %ctx, i64 %thread, i32 %epoch) {{
{at("epoch.at", "ctx", EPOCH)}
{at("job.at", "ctx", RUN)}
{at("step.at", "ctx", RUN + 8)}
{at("base.at", "ctx", RUN + 16)}
{at("limit.at", "ctx", RUN + 24)}
{at("scratch.at", "ctx", RUN + 32)}
{at("stride.at", "ctx", RUN + 40)}
{at("threads.at", "ctx", RUN + 48)}
{at("slots", "ctx", SLOTS)}
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
{at("epoch.at", "ctx", EPOCH)}
{at("parked", "ctx", PARKED)}
{at("stop.at", "ctx", STOP)}
{field("spins", "ctx", IDLE)}
{field("syscall", "ctx", SYSCALL, "ptr")}
{field("futex", "ctx", FUTEX)}
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
  call i64 (i64, ...) %syscall(i64 %futex, ptr %epoch.at, i64 {WAIT_BITSET}, i32 %seen, ptr null, \
ptr null, i32 %mask)
  atomicrmw sub ptr %parked, i32 1 seq_cst
  br label %look
out:
  %answer = phi i32 [ 1, %look ], [ 0, %tired ]
  call void @restore(i32 %mode)
  ret i32 %answer
}}
"""

WORK = (_WAITING, _DOING, _WALKING, _JOINING, _SERVING)
