"""How work is cut into chunks for threads to claim."""

from striate.compiler.builder import Builder, Offset

# Work below this many seconds is one chunk: handing it out would cost more than it saves.
ONE_CHUNK = 20e-6
# Enough chunks that two to eight cores end together, few enough that claiming them costs nothing.
FEWEST, MOST = 8, 24
SECONDS_PER_CHUNK = 8e-6
# A round figure for estimates from counted cycles.
CYCLES_PER_SECOND = 3e9


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
