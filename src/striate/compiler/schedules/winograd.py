"""Winograd's convolution F(m x n, r x s): fewer products, more additions.

    output tile[m, n] = epilogue(A' (sum over channels of (G g G') * (B' d B)) A)

d is a window of m + r - 1 by n + s - 1 pixels, g the weights of r by s taps. F(4x4,3x3) multiplies
36 times where the direct way does 144. It adds in another order: results differ from the direct
way's by rounding, a few 1e-6 of the largest; they do not depend on tiles, blocks or threads.
Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015).
"""

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
from striate.compiler.schedules.winograd_blocking import Blocking, Window, choose_blocking
from striate.compiler.schedules.winograd_kernel import Kernel
from striate.compiler.target import Target
from striate.compiler.toom_cook import POINTS
from striate.notation.ir import Affine, Statement
from striate.transforms.rewrite import fresh

name = "winograd"


# Outputs a tile on each axis that has taps; larger ones cost more to transform than they save.
TILES = (4, 2)


def seconds(statement: Statement, target: Target) -> float | None:
    if not _windows(statement):
        return None
    window = _best(statement)
    return None if window.channels < target.lanes else choose_blocking(window, target)[0]


@lru_cache(maxsize=1024)
def _best(statement: Statement) -> Window:
    """The statement in tiles of the size with the smallest estimate; the same on every target."""
    target = Target.named("avx512")
    return min(_windows(statement), key=lambda window: choose_blocking(window, target)[0])


def _windows(statement: Statement) -> list[Window]:
    """The statement as a convolution of stride 1, in tiles of each size; [] if it isn't one."""
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
    (p, u), (q, v) = found[0], found[1]
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
    features = extents[contraction.feature]
    return [
        Window(contraction, outer, (p, q), size, taps, tile, channels, features)
        for tile in _tiles(taps)
    ]


def _tiles(taps: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of tiles for that many taps, none for a single one."""
    most = max(taps)
    fitting = [m for m in TILES if most > 1 and m + most - 2 <= len(POINTS)]
    return [(m if taps[0] > 1 else 1, m if taps[1] > 1 else 1) for m in fitting]


def _window_axis(affine: Affine, contraction: Contraction) -> tuple[str, str] | None:
    """(output index, tap) of an access `p + u + constant`."""
    if len(affine.terms) != 2 or any(step != 1 for _, step in affine.terms):
        return None
    names = [index for index, _ in affine.terms]
    taps = [i for i in names if i in contraction.taps]
    rows = [i for i in names if i in contraction.rows]
    return (rows[0], taps[0]) if len(taps) == len(rows) == 1 else None


def halo(statement: Statement) -> dict[str, Halo]:
    window = _best(statement)
    data = window.contraction.data
    margin = window_halo(statement, data)
    assert margin is not None
    sizes = zip(window.grid, window.tile, window.size, strict=True)
    below, right = (count * m - size for count, m, size in sizes)
    return {data.tensor: (margin[0], margin[1] + below, margin[2], margin[3] + right)}


def emit(task: Task) -> Emission:
    window = _best(task.statement)
    return emission(task, window, choose_blocking(window, task.target)[1])


def emission(task: Task, window: Window, blocking: Blocking) -> Emission:
    kernel = Kernel(task, window, blocking)
    chunks = -(-window.tiles // blocking.span) * blocking.parts
    (m, n), (r, s) = window.tile, window.taps
    plan = (
        f"{name}: F({m}x{n},{r}x{s}), {window.tiles} tiles in blocks of {blocking.block}; register "
        f"tile of {blocking.rows} by {blocking.vectors} vectors of {task.target.lanes}; "
        f"{chunks} chunks"
    )
    weight = window.contraction.weight.tensor
    packed = {weight: _packing(task, window, blocking)}
    rows, columns = window.algorithms
    transforms = {weight: (rows.weights, columns.weights)}
    return Emission(kernel.write, chunks, plan, packed, kernel.scratch_bytes, transforms)


def _packing(task: Task, window: Window, blocking: Blocking) -> Statement:
    """`packed[panel, u, v, channel, lane] = G g G'`, where u and v count products."""
    contraction, weight = window.contraction, window.contraction.weight
    assert contraction.channel is not None
    (u, v), width = contraction.taps, blocking.vectors * task.target.lanes
    names = fresh(("panel", "lane"), set(dict(task.statement.extents)))
    panel, lane = names.values()
    source = contraction.weight_at(Affine(((panel, width), (lane, 1))))
    products = dict(zip((u, v), window.sides, strict=True))
    sizes = {panel: blocking.panels, **products, contraction.channel: window.channels, lane: width}
    made = packing(task.statement, weight, source, sizes)
    shape = (*window.sides, *dict(task.statement.shapes)[weight.tensor][2:])
    return replace(made, shapes=((weight.tensor, shape),))
