"""Weights fetched ahead: while a step computes, its kernel asks for what the steps after it read.

A network's weights pass through the caches once a run, and a step that finds them in memory waits
for the first ones: small networks spend a tenth of their time so. Kernels therefore ask for a few
cache lines of later weights in every round of their loops (`Builder.prefetch_later`), too few at a
time to keep what they read themselves waiting, and memory is busy all the time.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from striate.compiler.layout import CACHE_LINE
from striate.compiler.program import NO_ROOM, Prefetch, Program, Room, Step
from striate.compiler.target import Target

# A chunk can ask for so many times the weights that it reads itself, if it has the rounds for it:
# with that, steps that have none are made up for. A round that asks for more lines waits for them.
_TIMES, _MOST_LINES = 2, 6
# The share of the last cache that weights may take which a step reads or fetches: others use it,
# and a virtual machine may have but a part of it.
_SHARE = 8

_Range = tuple[int, int]


def room(rounds: int, nbytes: int) -> Room:
    """What a chunk can ask for whose loops make so many rounds over `nbytes` bytes of weights."""
    if rounds == 0:
        return NO_ROOM
    return Room(rounds, max(1, min(_MOST_LINES, math.ceil(_TIMES * nbytes / CACHE_LINE / rounds))))


def with_prefetches(program: Program, nbytes: int, target: Target) -> Program:
    """`program`, whose constants have `nbytes` bytes, with what each step is to fetch.

    Every weight is asked for as late as the rooms of the steps before its reader allow, and waits
    beside a small part of the target's last cache at most, lest it be gone again.
    """
    sizes, near = _sizes(program, nbytes), target.l3 // _SHARE
    waiting: list[_Range] = []
    phases: list[tuple[Step, ...]] = []
    for phase in reversed(program.phases):
        own = [(offset, sizes[offset]) for offset in sorted(_constants(phase))]
        waiting = _first(waiting, near - sum(size for _, size in own))
        steps = []
        for step in phase:
            each = program.kernels[step.kernel].room
            taken, waiting = _taken(waiting, step.chunks * each.rounds * each.lines * CACHE_LINE)
            steps.append(replace(step, later=_shared(taken, step.chunks, each.rounds)))
        phases.append(tuple(steps))
        waiting = own + waiting
    return replace(program, phases=tuple(reversed(phases)))


def _constants(phase: Iterable[Step]) -> set[int]:
    """Where the constants that a phase reads begin."""
    return {p.offset for step in phase for p in step.pointers if p.space == "constant"}


def _sizes(program: Program, nbytes: int) -> dict[int, int]:
    """The size of every constant, by its offset: they lie one after another."""
    offsets = set().union(*[_constants(phase) for phase in program.phases])
    return {start: end - start for start, end in pairwise(sorted({*offsets, nbytes}))}


def _first(ranges: Sequence[_Range], nbytes: int) -> list[_Range]:
    """The first `nbytes` bytes of `ranges`."""
    found = []
    for start, size in ranges:
        kept = min(size, nbytes) // CACHE_LINE * CACHE_LINE
        if kept > 0:
            found.append((start, kept))
        nbytes -= size
    return found


def _taken(ranges: Sequence[_Range], nbytes: int) -> tuple[_Range, list[_Range]]:
    """At most `nbytes` bytes from the front that lie in one piece, and what is left."""
    start = end = ranges[0][0] if ranges else 0
    left = list(ranges)
    while left and left[0][0] == end and end - start < nbytes:
        offset, size = left.pop(0)
        kept = min(size, start + nbytes - end)
        end += kept
        if kept < size:
            left.insert(0, (offset + kept, size - kept))
    return (start, end - start), left


def _shared(taken: _Range, chunks: int, rounds: int) -> Prefetch:
    """The bytes that are `taken` as the shares of that many chunks."""
    start, nbytes = taken
    if nbytes == 0:
        return Prefetch()
    share = math.ceil(nbytes / chunks / CACHE_LINE) * CACHE_LINE
    return Prefetch(start, share, math.ceil(share / rounds))
