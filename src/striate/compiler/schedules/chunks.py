"""How work is cut into chunks for threads to claim."""

import math

from striate.compiler.builder import Builder, Offset
from striate.notation.ir import Statement

# Work below this many seconds is one chunk: a thread that is awake takes 0.1 us to claim another.
ONE_CHUNK = 4e-6
# Enough chunks that two to eight cores end together, few enough that claiming them costs nothing.
FEWEST, MOST = 6, 24
SECONDS_PER_CHUNK = 1.5e-6
# Round figures for estimates: counted cycles, and bytes that come from the second-level cache.
CYCLES_PER_SECOND = 3e9
CACHED_BYTES_PER_SECOND = 80e9


def estimated_seconds(statement: Statement, cycles: float) -> float:
    """The time of one core for that many cycles, and for moving all operands and the output."""
    shapes = [statement.shape, *[shape for _, shape in statement.shapes]]
    moved = sum(4 * math.prod(shape) for shape in shapes)
    return max(cycles / CYCLES_PER_SECOND, moved / CACHED_BYTES_PER_SECOND)


def wanted_chunks(seconds: float) -> int:
    """The number of chunks to cut `seconds` of work into."""
    if seconds <= ONE_CHUNK:
        return 1
    return min(MOST, max(FEWEST, int(seconds / SECONDS_PER_CHUNK)))


def share(builder: Builder, chunk: Offset, chunks: int, total: int) -> tuple[Offset, Offset]:
    """The range of `total` things that belongs to `chunk`, evenly."""
    if chunks == 1:
        return 0, total
    first = builder.divide(builder.multiply(chunk, total), chunks)
    following = builder.multiply(builder.add(chunk, 1), total)
    return first, builder.divide(following, chunks)
