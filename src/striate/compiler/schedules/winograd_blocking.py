"""Sizes of Winograd's convolution: its tiles, its blocks, and the time that they cost."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

from striate.compiler.schedules import pairs
from striate.compiler.schedules.contraction import Contraction
from striate.compiler.schedules.pooled import Pooled
from striate.compiler.target import Target
from striate.compiler.toom_cook import Algorithm, algorithm

# What is tried: parts of the features, and the most tiles in a block.
PARTS, BLOCKS = (1, 2, 4, 8), (16, 28, 56, 112)
MOST_CHUNKS = 16
# Cycles of one vector of one product, as measured (Zen 4): a multiply-add, in the cycles of the
# target's peak; to transform a window and an output tile; what is more for windows that are not
# near; to read windows past the second-level cache, for a panel and for one of pairs; and weights.
EFFORT, WINDOW, OUTPUT, FAR_WINDOW, FAR_DATA, FAR_PAIRED, FAR_WEIGHTS = 0.91, 5, 5, 6, 3, 12, 1
# A transform of more values than this spills registers: it takes as the square of their number.
UNSPILT = 50
# Cycles to begin a register tile; what is more for a vector of sums that fill that cache.
BEGIN, FAR_SUMS = 25, 4
# The share of a chunk that the last one keeps the others waiting, and that of the time in which
# memory gives the weights which no work hides.
LAST, EXPOSED = 0.03, 0.2


@dataclass(frozen=True)
class Window:
    """F(m x n, r x s) on one convolution: `tile` is (m, n), `taps` (r, s), `grid` the tiles.

    `pixels` are the output indices of rows and columns, `size` their extents, `outer` the indices
    before them with theirs. `pooled` says which windows of outputs are pooled; a tile holds whole
    ones.
    """

    pooled: Pooled
    contraction: Contraction
    outer: tuple[tuple[str, int], ...]
    pixels: tuple[str, str]
    size: tuple[int, int]
    taps: tuple[int, int]
    stride: tuple[int, int]
    tile: tuple[int, int]
    channels: int
    features: int

    @cached_property
    def phases(self) -> tuple[int, int]:
        """The phases of rows and of columns that have taps."""
        rows, columns = (min(s, r) for s, r in zip(self.stride, self.taps, strict=True))
        return rows, columns

    @cached_property
    def reach(self) -> tuple[int, int]:
        """The most taps of a phase; the point at infinity is zero where a phase has one less."""
        rows, columns = (math.ceil(r / s) for r, s in zip(self.taps, self.stride, strict=True))
        return rows, columns

    @cached_property
    def far_phases(self) -> tuple[int, int]:
        """The phases of rows and of columns that the point at infinity has: the first ones."""
        sizes = zip(self.taps, self.stride, self.reach, strict=True)
        rows, columns = (r - s * (reach - 1) for r, s, reach in sizes)
        return rows, columns

    @cached_property
    def grid(self) -> tuple[int, int]:
        rows, columns = (math.ceil(n / m) for n, m in zip(self.size, self.tile, strict=True))
        return rows, columns

    @cached_property
    def pool(self) -> tuple[int, int]:
        """The rows and columns of outputs that are pooled into one."""
        rows, columns = self.pooled.window(self.pixels)
        return rows, columns

    @cached_property
    def tiles(self) -> int:
        return math.prod(self.grid) * math.prod(size for _, size in self.outer)

    @cached_property
    def sides(self) -> tuple[int, int]:
        height, breadth = (m + r - 1 for m, r in zip(self.tile, self.reach, strict=True))
        return height, breadth

    @cached_property
    def algorithms(self) -> tuple[Algorithm, Algorithm]:
        rows, columns = (algorithm(m, r) for m, r in zip(self.tile, self.reach, strict=True))
        return rows, columns

    @cached_property
    def products(self) -> int:
        return math.prod(self.sides)

    @cached_property
    def depth(self) -> int:
        """The channels of all phases: the most terms of a product."""
        return math.prod(self.phases) * self.channels

    @cached_property
    def terms(self) -> int:
        """The terms of all products of a tile."""
        sizes = zip(self.sides, self.phases, self.far_phases, strict=True)
        return self.channels * math.prod((n - 1) * all_ + far for n, all_, far in sizes)

    def together(self, target: Target) -> int:
        """The phases whose channels share a vector."""
        return max(1, target.lanes // self.channels)

    def vectors(self, target: Target) -> int:
        """The vectors of a window's channels and phases."""
        each = math.ceil(self.channels / target.lanes)
        return math.ceil(math.prod(self.phases) / self.together(target)) * each


@dataclass(frozen=True, slots=True)
class Blocking:
    """How the work is cut.

    A chunk is `span` tiles by one of `parts` of the panels; it goes on in blocks of `block` tiles.
    A register tile is `rows` tiles by `vectors` vectors of features, a panel that many vectors
    wide. `paired` says that products are made by pairs of channels.
    """

    span: int
    parts: int
    block: int
    rows: int
    vectors: int
    panels: int
    paired: bool = False


@lru_cache(maxsize=1024)
def choose_blocking(window: Window, target: Target) -> tuple[float, Blocking]:
    """(seconds, blocking) with the least estimate."""
    found = ((_seconds(window, target, one), one) for one in _blockings(window, target))
    return min(found, key=lambda pair: pair[0])


def _blockings(window: Window, target: Target) -> Iterator[Blocking]:
    for spans in (1, 2, 3, 4, 6, 8, 12, 16):
        span = math.ceil(window.tiles / spans)
        if math.ceil(window.tiles / span) != spans:
            continue
        blocks = {math.ceil(span / math.ceil(span / most)) for most in BLOCKS}
        ways = (False, True) if _pairs_fit(window, target) else (False,)
        for parts, block, paired in product(PARTS, blocks, ways):
            if spans * parts <= MOST_CHUNKS:
                rows, vectors = _register_tile(window, target, span, block, parts, paired=paired)
                panels = math.ceil(window.features / (vectors * target.lanes))
                yield Blocking(span, min(parts, panels), block, rows, vectors, panels, paired)


def _pairs_fit(window: Window, target: Target) -> bool:
    """Whether products may be made by pairs of channels."""
    return target.adders and math.prod(window.phases) == 1 and window.channels >= target.lanes


def _register_tile(
    window: Window, target: Target, span: int, block: int, parts: int, *, paired: bool
) -> tuple[int, int]:
    """(rows, vectors) of the register tile that takes the fewest cycles."""
    found = []
    features = math.ceil(window.features / target.lanes)
    for vectors in range(1, 2 if paired else min(features, 4) + 1):
        most = max(1, min(block, (target.registers - 1 - vectors) // vectors))
        most = min(most, pairs.most_pixels(target)) if paired else most
        panels = math.ceil(math.ceil(features / vectors) / parts)
        fewest = math.ceil(block / most)
        for groups in range(fewest, fewest + 3):
            rows = math.ceil(block / groups)
            cycles = 1.0 + 1.0 / rows if paired else _cycles(window, target, rows, vectors)
            found.append((_rows(span, block, rows) * panels * vectors * cycles, rows, vectors))
    _, rows, vectors = min(found)
    return rows, vectors


def _cycles(window: Window, target: Target, rows: int, vectors: int) -> float:
    """Cycles for each multiply-add of vectors: at least 1, more for loads and latency."""
    products = rows * vectors
    # Every register tile reads the weights of a product again, from the first cache or the second.
    panel = 4 * window.depth * vectors * target.lanes
    load = 1.5 if panel <= target.l1 // 2 else 3.0
    loads = (1.25 * rows + load * vectors) / products
    return max(1.0, loads, 12 / products) + 0.05 * loads


def _rows(span: int, block: int, rows: int) -> int:
    """The rows of all register tiles of a chunk."""
    whole, rest = divmod(span, block)
    return rows * (whole * math.ceil(block / rows) + math.ceil(rest / rows))


def fetches_windows(window: Window, target: Target, blocking: Blocking) -> bool:
    """Whether the next block's windows are brought near while a block's products are made.

    That is if there is one, and the second-level cache has room for it but not for the image.
    """
    following = 4 * math.prod(window.tile) * blocking.block * window.depth
    room = _block_bytes(window, target, blocking) + following <= target.l2 * 7 // 8
    return room and blocking.block < blocking.span and _is_far(window, target, window.depth)


def fetches_outputs(window: Window, target: Target) -> bool:
    """Whether outputs' cache lines are brought near: if the second-level cache can't hold all."""
    return _is_far(window, target, window.features / math.prod(window.pool))


def _is_far(window: Window, target: Target, channels: float) -> bool:
    """Whether an image of so many channels outgrows the second-level cache."""
    return 4 * math.prod(window.size) * channels > target.l2


def _block_bytes(window: Window, target: Target, blocking: Blocking) -> int:
    """The scratch memory of a block: V, and M of a panel."""
    vectors = window.vectors(target) + blocking.vectors
    return 4 * window.products * blocking.block * vectors * target.lanes


def _seconds(window: Window, target: Target, blocking: Blocking) -> float:
    """The estimated time on one core."""
    n, lanes = window.products, target.lanes
    span, block, near = blocking.span, blocking.block, target.l2 * 3 // 4
    panels, vectors = math.ceil(blocking.panels / blocking.parts), window.vectors(target)
    features = panels * blocking.vectors
    cycles = EFFORT * _rows(span, block, blocking.rows) * window.terms / n * features
    if blocking.paired:
        cycles *= pairs.TERM * (1.0 + 1.0 / blocking.rows)
        cycles += span * (pairs.VECTOR * vectors + pairs.PIXEL + pairs.SUM * features)
    else:
        cycles *= _cycles(window, target, blocking.rows, blocking.vectors)
    cycles += BEGIN * _rows(span, block, blocking.rows) / blocking.rows * panels
    sums = 4 * n * block * blocking.vectors * lanes
    cycles += FAR_SUMS * min(1.0, sums / target.l2) * span * features
    spilt = min(1.0, max(0.0, _block_bytes(window, target, blocking) / near - 1))
    # V is written once and read for each panel.
    effort = max(1.0, n / UNSPILT) ** 2
    again = FAR_PAIRED if blocking.paired else FAR_DATA
    cycles += (effort * WINDOW + spilt * (FAR_DATA + again * panels)) * span * vectors
    cycles += effort * OUTPUT * span * features
    if not fetches_windows(window, target, blocking):
        cycles += FAR_WINDOW * span * vectors
    # A chunk finds no weights near; its later blocks do where they have stayed.
    kept = 4 * window.terms * features * lanes <= near
    cycles += FAR_WEIGHTS * window.terms / n * features * (1 if kept else math.ceil(span / block))
    spans = math.ceil(window.tiles / span)
    chunks = spans * blocking.parts
    # Few chunks wait long for the last of them.
    rounds = math.ceil(chunks / target.cores) * target.cores + LAST * target.cores
    work = n * cycles * rounds * 2.0 * lanes / target.flops_per_second
    weights = 4.0 * window.terms * blocking.panels * blocking.vectors * lanes
    # The cores read the same weights together; each block reads them again.
    passes = math.ceil(spans / target.cores) * math.ceil(span / block)
    memory = weights * (passes if weights > target.l3 else 1) / target.bytes_per_second
    return max(work, memory) + EXPOSED * memory
