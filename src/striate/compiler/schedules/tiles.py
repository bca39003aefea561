"""The register tile of a product of pixels and features: its size by the cycles it wastes least."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from striate.compiler.schedules.pairs import most_pixels
from striate.compiler.target import Target

# The first-level data cache of every CPU this was measured on.
CACHE_LINE, CACHE_SETS, CACHE_WAYS = 64, 64, 8
# Half vectors must save at least this share: they take twice the instructions.
LEAST_SAVING = 0.08


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` x `columns` output pixels by `vectors` of features held in registers."""

    rows: int
    columns: int
    vectors: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Product:
    """`rows` x `columns` pixels, `pitch` bytes apart along a row, by `features`.

    `terms` is the length of one output's sum, `window` the rows and columns that are pooled: a tile
    holds whole windows. With `paired` two of three terms take the time of one (`pairs`).
    """

    rows: int
    columns: int
    features: int
    terms: int
    pitch: int
    window: tuple[int, int] = (1, 1)
    paired: bool = False


# How much longer the work takes with a tile for reasons that are the caller's.
Surplus = Callable[[Tile, Target], float]


def choose_tile(product: Product, target: Target, surplus: Surplus) -> tuple[Tile, Target]:
    """The tile, and the target with the lanes of its vectors.

    Where a vector runs as two halves, half vectors waste less on a last one that is half empty.
    """
    tile, cycles = _best_tile(product, target, surplus)
    if _leaves_half(product.features, target) and not product.paired:
        half = replace(target, lanes=target.lanes // 2, halved=False)
        narrow, fewer = _best_tile(product, half, surplus)
        if fewer / 2 < (1 - LEAST_SAVING) * cycles:
            return narrow, half
    return tile, target


def padded(features: int, target: Target) -> int:
    """How many features the vectors compute that hold so many."""
    lanes = target.lanes // 2 if _leaves_half(features, target) else target.lanes
    return math.ceil(features / lanes) * lanes


def _leaves_half(features: int, target: Target) -> bool:
    """Whether the last vector would be half empty, where a half takes half the time."""
    return target.halved and 0 < features % target.lanes <= target.lanes // 2


def _best_tile(product: Product, target: Target, surplus: Surplus) -> tuple[Tile, float]:
    """The best tile of whole vectors, and its cycles for each term of a pixel."""
    vectors = math.ceil(product.features / target.lanes)
    budget = target.registers - 1
    down, right = product.window
    best, least = Tile(down, right, 1), math.inf
    # Pairs read each pixel as an operand of every addition: a second vector would read it again.
    for v in range(1, 2 if product.paired else min(vectors, 8) + 1):
        for r in {min(down * n, product.rows) for n in (1, 2, 4)}:
            most = min(product.columns, (budget - v) // (r * v))
            if product.paired:
                most = min(most, most_pixels(target) // r)
            for c in range(right, most + 1, right):
                if r > down and c < product.columns:
                    continue
                tile = Tile(r, c, v)
                # What is wasted bounds the cost from below, and most tiles waste too much.
                waste = _waste(tile, product, vectors) * surplus(tile, target)
                cost = waste if waste >= least else waste * _cycles(tile, product, target)
                if cost < least - 1e-9 and _conflicts(tile, product):
                    cost *= 1.3
                if cost < least - 1e-9:
                    best, least = tile, cost
    return best, least * vectors


def _waste(tile: Tile, product: Product, vectors: int) -> float:
    """How much more the tiles compute than there is: they overlap at the borders."""
    waste = 1.0
    sizes = (tile.rows, product.rows), (tile.columns, product.columns), (tile.vectors, vectors)
    for part, whole in sizes:
        waste *= math.ceil(whole / part) * part / whole
    return waste


def _cycles(tile: Tile, product: Product, target: Target) -> float:
    """Cycles for each multiply-add of vectors: at least 1, more for loads and latency."""
    products = tile.pixels * tile.vectors
    # Folded into its only product, a 64-byte broadcast takes the load units twice (Zen 4).
    broadcasts = tile.pixels * (2.0 if target.lanes >= 16 and tile.vectors == 1 else 1.25)
    loads = (broadcasts + tile.vectors * _load_cycles(tile, product, target)) / products
    if product.paired:
        # Of the time of pairs: few pixels do not hide the loads of weights.
        return max(1.0, 0.85 + 1.5 / products)
    return max(1.0, loads, 10 / products) + 0.02 * loads


def _load_cycles(tile: Tile, product: Product, target: Target) -> float:
    """Cycles to load a vector of weights: every tile reads its whole panel, from some cache."""
    panel = 4 * product.terms * tile.vectors * target.lanes
    if panel <= target.l1 // 2:
        return 1.0
    return 1.5 if panel <= target.l2 * 7 // 8 else 4.0


def _conflicts(tile: Tile, product: Product) -> bool:
    """Whether the tile's pixels lie so that a set of the first-level cache can't hold them."""
    lines = [product.pitch * column // CACHE_LINE for column in range(tile.columns)]
    sets = [line % CACHE_SETS for line in lines]
    return max(map(sets.count, sets)) > CACHE_WAYS - 2
