"""The memory that the thread team's machine code shares with Python: which word lies where."""

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
IDLE = SPINS + 72
MASK = 8 * LINE
SLOTS = 9 * LINE
# Within a slot, behind the job: the system's number of the thread.
SLOT_THREAD = 8

# A job: six words that say what to run, then the steps' records. What a step fetches for later
# ones: where its first chunk's share lies, the bytes of each share, and of each round.
JOB_STEP, JOB_BEGIN, JOB_LIMIT, JOB_SCRATCH, JOB_STRIDE, JOB_THREADS = range(6)
JOB_WORDS = 8
STEP_FUNCTION, STEP_POINTERS, STEP_FIRST, STEP_END, STEP_GATE, STEP_PHASE_END = range(6)
STEP_LATER, STEP_SHARE, STEP_PACE = range(6, 9)
STEP_WORDS = 9

# The word `claim`: how many chunks are taken, above how many of its step from the back.
BACK_BITS = 16
MOST_BACK = (1 << BACK_BITS) - 1


def at(name: str, base: str, offset: int) -> str:
    """The address `offset` bytes behind `base`, as %name."""
    return f"  %{name} = getelementptr i8, ptr %{base}, i64 {offset}"


def field(name: str, base: str, offset: int, kind: str = "i64") -> str:
    """What lies `offset` bytes behind `base`, as %name."""
    return f"{at(f'{base}.{name}', base, offset)}\n  %{name} = load {kind}, ptr %{base}.{name}"
