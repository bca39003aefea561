"""Winograd's convolution F(m x n, r x s): fewer products, more additions.

    output tile[m, n] = epilogue(A' (sum over phases and channels of (G g G') * (B' d B)) A)

d is a window of m + r - 1 by n + s - 1 pixels, g the weights of r by s taps. F(4x4,3x3) multiplies
36 times where the direct way does 144.

A convolution of stride 2 is the sum of four of stride 1: of even and odd rows and columns of the
image, its phases, with the even and odd taps. All phases have the same points, so their products
are summed before the one transform of the output: 7x7 taps become 4x4 ones on four phases, and 784
products 169, for the phases of one tap less are 0 at one point. Stride 1 is the case of one phase.

It adds in another order: results differ from the direct way's by rounding, a few 1e-6 of the
largest; they do not depend on tiles, blocks or threads.
Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015).
"""

import math
from dataclasses import replace
from functools import lru_cache

from striate.compiler.layout import Halo
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.contraction import (
    Contraction,
    fits_layout,
    match_contraction,
    packing,
)
from striate.compiler.schedules.epilogue import fits_epilogue
from striate.compiler.schedules.pooled import take_apart
from striate.compiler.schedules.winograd_blocking import Blocking, Window, choose_blocking
from striate.compiler.schedules.winograd_kernel import Kernel
from striate.compiler.target import Target
from striate.compiler.toom_cook import POINTS
from striate.notation.ir import Affine, Read, Statement
from striate.transforms.rewrite import fresh

name = "winograd"


# Outputs a tile on each axis that has taps.
TILES = (4, 2)
# Larger tiles multiply less, but their transforms take longer and their weights more memory: these
# pay on images that they cover without waste (Inception's 35 pixels), and where many share the
# weights. With more than three taps they would round seven times as much.
EXACT, LARGE, MANY, MOST_TAPS = 5, 6, 128, 3


def seconds(statement: Statement, target: Target) -> float | None:
    window = _best(statement)
    return choose_blocking(window, target)[0] if window else None


@lru_cache(maxsize=1024)
def _best(statement: Statement) -> Window | None:
    """The statement in tiles of the size with the smallest estimate; the same on every target."""
    target, found = Target.named("avx512"), _windows(statement)
    return min(found, key=lambda one: choose_blocking(one, target)[0]) if found else None


def _windows(statement: Statement) -> list[Window]:
    """The statement as a dense convolution, in tiles of each size; [] if it isn't one."""
    pooled = take_apart(statement)
    statement = pooled.layer
    contraction = match_contraction(statement)
    if contraction is None or contraction.group or not contraction.feature:
        return []
    data, weight = contraction.data, contraction.weight
    if contraction.channel is None or len(data.access) != 4 or len(contraction.taps) != 2:
        return []
    *_, rows, columns, _ = data.access
    found = [_window_axis(affine, contraction) for affine in (rows, columns)]
    if found[0] is None or found[1] is None:
        return []
    (p, u, down), (q, v, right) = found[0], found[1]
    if (u, v) != contraction.taps or contraction.rows[-2:] != (p, q):
        return []
    if weight.access[:2] != (Affine(((u, 1),)), Affine(((v, 1),))):
        return []
    if not fits_epilogue(statement) or not fits_layout(statement, contraction):
        return []
    extents = dict(statement.extents)
    taps = (extents[u], extents[v])
    outer = tuple((index, extents[index]) for index in contraction.rows[:-2])
    size, channels = (extents[p], extents[q]), extents[contraction.channel]
    features, stride = extents[contraction.feature], (down, right)
    pool = pooled.window((p, q))
    if math.prod(pool) < math.prod(pooled.window(contraction.rows)):
        return []
    return [
        Window(pooled, contraction, outer, (p, q), size, taps, stride, tile, channels, features)
        for tile in _tiles(taps, stride, size, math.prod(count for _, count in outer))
        if not any(m % n for m, n in zip(tile, pool, strict=True))
    ]


def _tiles(
    taps: tuple[int, int], stride: tuple[int, int], size: tuple[int, int], images: int
) -> list[tuple[int, int]]:
    """The sizes of tiles for that many taps, none for phases of a single one."""
    reach = [math.ceil(r / s) for r, s in zip(taps, stride, strict=True)]
    most, sides = max(reach), [n for n, r in zip(size, reach, strict=True) if r > 1]
    tried = list(TILES)
    if most <= MOST_TAPS and all(n % EXACT == 0 for n in sides):
        tried.insert(0, EXACT)
    lines = math.prod(size) // math.prod(sides)
    if most <= MOST_TAPS and images * lines * math.prod(-(-n // LARGE) for n in sides) >= MANY:
        tried.insert(0, LARGE)
    fitting = [m for m in tried if most > 1 and m + most - 2 <= len(POINTS)]
    return [(m if reach[0] > 1 else 1, m if reach[1] > 1 else 1) for m in fitting]


def _window_axis(affine: Affine, contraction: Contraction) -> tuple[str, str, int] | None:
    """(output index, tap, stride) of an access `stride*p + u + constant`."""
    steps = dict(affine.terms)
    taps = [i for i in steps if i in contraction.taps and steps[i] == 1]
    rows = [i for i in steps if i in contraction.rows and steps[i] > 0]
    if len(steps) != 2 or len(taps) != 1 or len(rows) != 1:
        return None
    return rows[0], taps[0], steps[rows[0]]


def transformed(statement: Statement, target: Target) -> str:
    """The weights."""
    contraction = match_contraction(take_apart(statement).layer)
    assert contraction is not None
    return contraction.weight.tensor


def halo(statement: Statement) -> dict[str, Halo]:
    window = _best(statement)
    assert window is not None
    contraction = window.contraction
    whole = [count * m for count, m in zip(window.grid, window.tile, strict=True)]
    sizes = zip(window.reach, window.stride, window.phases, strict=True)
    taps = [(reach - 1) * stride + phases for reach, stride, phases in sizes]
    read = dict(zip((*window.pixels, *contraction.taps), (*whole, *taps), strict=True))
    extents = tuple((index, read.get(index, size)) for index, size in statement.extents)
    margin = window_halo(replace(statement, extents=extents), contraction.data)
    assert margin is not None
    return {contraction.data.tensor: margin}


def emit(task: Task) -> Emission:
    window = _best(task.statement)
    assert window is not None
    return emission(task, window, choose_blocking(window, task.target)[1])


def emission(task: Task, window: Window, blocking: Blocking) -> Emission:
    task = window.pooled.layer_task(task)
    kernel = Kernel(task, window, blocking)
    chunks = -(-window.tiles // blocking.span) * blocking.parts
    (m, n), (r, s), (down, right) = window.tile, window.reach, window.phases
    plan = (
        f"{name}: F({m}x{n},{r}x{s}) on {down}x{right} phases, {window.tiles} tiles in blocks of "
        f"{blocking.block}; register tile of {blocking.rows} by {blocking.vectors} vectors of "
        f"{task.target.lanes}; {chunks} chunks"
    )
    weight = window.contraction.weight.tensor
    packed = {weight: _packing(task, window, blocking)}
    rows, columns = window.algorithms
    transforms = {weight: (rows.weights, columns.weights)}
    balances = {weight: kernel.balance} if blocking.paired else {}
    plan += "; pairs of channels" if blocking.paired else ""
    scratch = kernel.scratch_bytes
    return Emission(
        kernel.write, chunks, plan, packed, scratch, transforms, balances, room=kernel.room
    )


def _packing(task: Task, window: Window, blocking: Blocking) -> Statement:
    """`packed[panel, u, v, row, column, channel, lane] = W[s*u + row, t*v + column, ...]`.

    The taps of each phase, 0 past the last; their transform has products in place of u and v.
    """
    contraction, weight = window.contraction, window.contraction.weight
    assert contraction.channel is not None
    names = fresh(("panel", "row", "column", "lane"), set(dict(task.statement.extents)))
    panel, row, column, lane = names.values()
    width = blocking.vectors * task.target.lanes
    (u, v), (height, breadth) = contraction.taps, window.phases
    sizes = {panel: blocking.panels, u: window.reach[0], v: window.reach[1]}
    sizes |= {row: height, column: breadth, contraction.channel: window.channels, lane: width}
    taps = zip((u, v), window.stride, (row, column), strict=True)
    access = [Affine(((tap, stride), (phase, 1))) for tap, stride, phase in taps]
    features = contraction.weight_at(Affine(((panel, width), (lane, 1))))
    source = Read(weight.tensor, (*access, *features.access[2:]))
    return packing(task.statement, weight, source, sizes)
