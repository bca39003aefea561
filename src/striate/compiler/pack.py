"""Constants as copies of parameters: what a schedule asks for, read from the raw arrays.

A schedule asks for `packed[...] = weights[...]`; the weights may themselves be `W[...] * scale[.]`
or W in another order. All that becomes one strided copy, which the code of `pack_code` makes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from striate.compiler import pack_code
from striate.compiler.layout import strides_in
from striate.compiler.pack_code import BOUNDS, DIMS, Variant
from striate.compiler.toom_cook import Matrices
from striate.network.graph import Derived, Known
from striate.notation.ir import Affine, Apply, Expression, Read, Shape, Statement
from striate.transforms.rewrite import substitute

# A thread that packs takes this much at once (bytes).
CHUNK_BYTES = 1 << 17
_NO_LIMIT = 1 << 62
_NO_TERMS: Mapping[str, int] = {}

Strides = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """An array and where it is read: one affine function of the packed indices for each axis."""

    node: Known
    access: tuple[Affine, ...]


def product(packing: Statement, node: Known) -> tuple[Factor, ...]:
    """The packed array as a product of arrays that are no copies themselves; () if it isn't one."""
    source = packing.equation.expression
    if not isinstance(source, Read):
        return ()
    factors = [Factor(node, source.access)]
    done: list[Factor] = []
    while factors:
        factor = factors.pop(0)
        inner = _inner(factor)
        if inner is None:
            done.append(factor)
        else:
            factors = [*inner, *factors]
    return tuple(done)


def _inner(factor: Factor) -> list[Factor] | None:
    """The factors of a derived array that is itself a copy or a product of copies."""
    node = factor.node
    if not isinstance(node, Derived):
        return None
    output = node.statement.equation.output.access
    indices = [affine.index for affine in output]
    if None in indices or len(set(indices)) != len(indices):
        return None
    reads = _factors(node.statement.equation.expression)
    if reads is None or any(a.divisor > 1 for read in reads for a in read.access):
        return None
    targets = {i: a for i, a in zip(indices, factor.access, strict=True) if i is not None}
    named = dict(node.operands)
    return [
        Factor(named[read.tensor], tuple(substitute(a, targets) for a in read.access))
        for read in reads
    ]


def _factors(expression: Expression) -> list[Read] | None:
    match expression:
        case Read():
            return [expression]
        case Apply("multiply", (left, right)):
            found = [_factors(left), _factors(right)]
            return None if None in found else [read for reads in found for read in reads or []]
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Copy:
    """A strided copy: the code it takes, and the words that tell the code what to do."""

    variant: Variant
    words: tuple[int, ...]
    offsets: tuple[int, ...]

    @property
    def chunks(self) -> int:
        return self.words[pack_code.CHUNKS]


def copy(
    packing: Statement,
    factors: tuple[Factor, ...],
    strides: Sequence[Strides],
    matrices: Matrices | None,
) -> Copy | None:
    """The copy that makes the packed array out of one or two factors with these strides (bytes).

    None for what the code cannot do.
    """
    order = [affine.index for affine in packing.equation.output.access if affine.index]
    if len(order) != len(packing.shape) or not 1 <= len(factors) <= 2:
        return None
    # A single number is one lane.
    shape, order = (packed_shape(packing, matrices), order) if order else ((1,), ["lane"])
    *outer, lane = order
    taps = order[1:3] if matrices else []
    extents = dict(zip(order, packing.shape or shape, strict=True))
    written = dict(zip(order, strides_in(tuple(range(len(order))), shape), strict=True))
    source, scale, *_ = [*map(_steps, factors, strides), {}]
    limits = _limits(factors, extents)
    dims = [index for index in outer if index not in taps and extents[index] > 1]
    bounded = {index for _, terms in limits or () for index in terms}
    dims = _merged(dims, extents, bounded, (written, source, scale))
    if scale.get(lane, 4) != 4 or limits is None or len(dims) > DIMS:
        return None
    involved = {*scale, *[index for _, terms in limits for index in terms]}
    if set(taps) & set(scale) or any(terms.get(lane, 0) not in (0, 1) for _, terms in limits):
        return None
    # The outermost is shared among threads; the others go through the source as it lies.
    dims = [*dims[:1], *sorted(dims[1:], key=lambda index: -abs(source.get(index, 0)))]
    alone = len(dims) > 1 and dims[-1] not in involved and not taps
    kind = "strided"
    if source.get(lane, 0) == 4:
        kind = "unit"
    elif alone and source.get(dims[-1]) == 4:
        kind = "transposed"
    places = [*dims[:1], *[""] * (DIMS - len(dims)), *dims[1:]] if dims else [""] * DIMS
    chunks = 4 * math.prod(shape) // CHUNK_BYTES
    words = [max(1, min(extents.get(places[0], 1), chunks)), extents[lane], source.get(lane, 0)]
    words += [extents.get(index, 1) for index in places]
    words += [table.get(index, 0) for table in (written, source, scale) for index in places]
    words += [table.get(tap, 0) for table in (source, written) for tap in taps or ("", "")]
    for limit, terms in [*limits, *[(_NO_LIMIT, _NO_TERMS)] * (BOUNDS - len(limits))]:
        words += [limit, *[terms.get(index, 0) for index in (*places, lane, *(taps or ("", "")))]]
    starts = (
        sum(step * affine.offset for step, affine in zip(stride, factor.access, strict=True))
        for factor, stride in zip(factors, strides, strict=True)
    )
    partial = any(terms.get(tap) for _, terms in limits for tap in taps)
    return Copy(Variant(kind, len(factors) == 2, matrices, partial), tuple(words), tuple(starts))


def packed_shape(packing: Statement, matrices: Matrices | None) -> Shape:
    """The shape of what a packing writes: a transform has products in place of taps."""
    panels, *rest = packing.shape or (1,)
    return (panels, *map(len, matrices), *rest[2:]) if matrices else packing.shape


def _merged(
    dims: list[str], extents: dict[str, int], alone: set[str], tables: Sequence[Mapping[str, int]]
) -> list[str]:
    """`dims` without those that go on evenly where their inner neighbour ends, which grows."""
    merged: list[str] = []
    for index in reversed(dims):
        inner = merged[-1] if merged else index
        even = all(t.get(index, 0) == t.get(inner, 0) * extents[inner] for t in tables)
        if even and inner != index and alone.isdisjoint((index, inner)):
            extents[inner] *= extents[index]
        else:
            merged.append(index)
    return merged[::-1]


def _steps(factor: Factor, strides: Strides) -> dict[str, int]:
    """The bytes by which the read moves when an index grows by one."""
    steps: dict[str, int] = {}
    for stride, affine in zip(strides, factor.access, strict=True):
        for index, coefficient in affine.terms:
            steps[index] = steps.get(index, 0) + stride * coefficient
    return steps


def _limits(
    factors: tuple[Factor, ...], extents: Mapping[str, int]
) -> list[tuple[int, Mapping[str, int]]] | None:
    """`sum(coefficient * index) < limit` for each axis that is read past its end.

    None for reads below an axis, and for more bounds than the code can hold.
    """
    found: dict[tuple[int, tuple[tuple[str, int], ...]], None] = {}
    for factor in factors:
        for affine, size in zip(factor.access, factor.node.shape, strict=True):
            reach = [c * (extents[index] - 1) for index, c in affine.terms]
            if affine.divisor > 1 or affine.offset + sum(min(r, 0) for r in reach) < 0:
                return None
            if affine.offset + sum(max(r, 0) for r in reach) >= size:
                found[size - affine.offset, tuple(sorted(affine.terms))] = None
    limits: list[tuple[int, Mapping[str, int]]] = [(n, dict(terms)) for n, terms in found]
    return limits if len(limits) <= BOUNDS else None
