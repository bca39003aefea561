"""Place buffers in one block of memory by their lifetimes."""

from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """`nbytes` bytes needed from phase `first` to phase `last`, both included."""

    nbytes: int
    first: int
    last: int


def allocate(lifetimes: list[Lifetime]) -> tuple[list[int], int]:
    """The offset of every buffer, and the size of the block (bytes).

    Largest first, each at the lowest place where it overlaps no buffer that lives at the same time.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for k in sorted(
        range(len(lifetimes)), key=lambda k: (-lifetimes[k].nbytes, lifetimes[k].first)
    ):
        one = lifetimes[k]
        others = sorted(
            (offsets[j], offsets[j] + lifetimes[j].nbytes)
            for j in placed
            if lifetimes[j].first <= one.last and one.first <= lifetimes[j].last
        )
        offset = 0
        for start, end in others:
            if offset + one.nbytes <= start:
                break
            offset = max(offset, _align(end))
        offsets[k] = offset
        placed.append(k)
    total = max((o + b.nbytes for o, b in zip(offsets, lifetimes, strict=True)), default=0)
    return offsets, _align(total)


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
