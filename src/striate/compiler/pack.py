"""Constants as copies of parameters: what a schedule asks for, read from the raw arrays.

A schedule asks for `packed[...] = weights[...]`; the weights may themselves be `W[...] * scale[.]`
or W in another order. All that becomes one strided copy, which the code of `pack_code` makes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from striate.compiler import pack_code
from striate.compiler.pack_code import BOUNDS, DIMS, Variant
from striate.compiler.toom_cook import Matrices
from striate.network.graph import Array, Derived, Known
from striate.notation.ir import Affine, Apply, Equation, Expression, Read, Shape, Statement
from striate.transforms.rewrite import substitute

# A thread that packs takes this much at once (bytes).
CHUNK_BYTES = 1 << 17
_NO_LIMIT = 1 << 62

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
    indices = [affine.index for affine in packing.equation.output.access]
    if None in indices or not indices or not 1 <= len(factors) <= 2:
        return None
    order = [index for index in indices if index is not None]
    taps = _taps(packing, matrices)
    if taps is None:
        return None
    extents = dict(packing.extents)
    lane = order[-1]
    dense = strides_in(tuple(range(len(order))), packing.shape)
    written = dict(zip(order, dense, strict=True))
    steps = [_steps(factor, stride) for factor, stride in zip(factors, strides, strict=True)]
    source, scale = steps[0], steps[1] if len(steps) > 1 else {}
    if scale.get(lane, 4) != 4 or any(tap in scale for tap in taps):
        return None
    inner = dict(extents)
    if matrices:
        inner |= {tap: len(m[0]) for tap, m in zip(taps, matrices, strict=True)}
    bounds = [bound for factor in factors for bound in _bounds(factor, inner)]
    bounds = list(dict.fromkeys(bounds))
    if any(bad is None for bad in bounds) or len(bounds) > BOUNDS:
        return None
    limits = [(limit, dict(terms)) for limit, terms in (bound for bound in bounds if bound)]
    if any(terms.get(lane, 0) not in (0, 1) or set(taps) & set(terms) for _, terms in limits):
        return None
    dims = [i for i in order if i != lane and i not in taps and extents[i] > 1]
    if len(dims) > DIMS:
        return None
    # The outermost is shared among threads; the others go through the source as it lies.
    dims = [*dims[:1], *sorted(dims[1:], key=lambda i: -abs(source.get(i, 0)))]
    places: list[str | None] = [*dims[:1], *[None] * (DIMS - len(dims)), *dims[1:]]
    if not dims:
        places = [None] * DIMS
    turned = len(dims) > 1 and source.get(dims[-1]) == 4 and dims[-1] not in scale and not matrices
    turned = turned and not any(dims[-1] in terms for _, terms in limits)
    kind = "unit" if source.get(lane, 0) == 4 else "transposed" if turned else "strided"
    total = 4 * math.prod(packing.shape)
    outermost = extents[dims[0]] if dims else 1
    words = [max(1, min(outermost, total // CHUNK_BYTES)), extents[lane], source.get(lane, 0)]
    words += [extents[i] if i else 1 for i in places]
    for table in (written, source, scale):
        words += [table.get(i, 0) if i else 0 for i in places]
    for table in (source, written):
        words += [table.get(tap, 0) for tap in taps] or [0, 0]
    for limit, terms in [*limits, *[(_NO_LIMIT, {})] * (BOUNDS - len(limits))]:
        words += [limit, *[terms.get(i, 0) if i else 0 for i in places], terms.get(lane, 0)]
    starts = tuple(
        sum(s * a.offset for s, a in zip(stride, factor.access, strict=True))
        for factor, stride in zip(factors, strides, strict=True)
    )
    return Copy(Variant(kind, len(factors) == 2, matrices), tuple(words), starts)


def _taps(packing: Statement, matrices: Matrices | None) -> list[str] | None:
    """The indices along which a transform with `matrices` goes; [] without one."""
    if matrices is None:
        return []
    source = packing.equation.expression
    assert isinstance(source, Read)
    taps = [affine.index for affine in source.access[:2]]
    return [tap for tap in taps if tap] if None not in taps else None


def _steps(factor: Factor, strides: Strides) -> dict[str, int]:
    """The bytes by which the read moves when an index grows by one."""
    steps: dict[str, int] = {}
    for stride, affine in zip(strides, factor.access, strict=True):
        for index, coefficient in affine.terms:
            steps[index] = steps.get(index, 0) + stride * coefficient
    return steps


def _bounds(
    factor: Factor, extents: Mapping[str, int]
) -> list[tuple[int, tuple[tuple[str, int], ...]] | None]:
    """`sum(coefficient * index) < limit`, for each axis that reads past its end; None below 0."""
    found: list[tuple[int, tuple[tuple[str, int], ...]] | None] = []
    for affine, size in zip(factor.access, factor.node.shape, strict=True):
        reach = [(c * (extents[i] - 1)) for i, c in affine.terms]
        if affine.divisor > 1 or affine.offset + sum(min(r, 0) for r in reach) < 0:
            found.append(None)
        elif affine.offset + sum(max(r, 0) for r in reach) >= size:
            found.append((size - affine.offset, tuple(sorted(affine.terms))))
    return found


def whole(node: Known) -> Statement:
    """`packed[...] = x[...]`: the array as it is."""
    names = [f"n{axis}" for axis in range(len(node.shape))]
    access = tuple(Affine(((name, 1),)) for name in names)
    extents = tuple(zip(names, node.shape, strict=True))
    equation = Equation(Read("packed", access), Read("x", access), extents)
    return Statement(equation, (("x", node.shape),), extents, node.shape)


def memory_order(array: Array) -> tuple[int, ...]:
    """The axes of `array` in which it is C-contiguous, or as they are if there are none such.

    Weights from files are permutations of contiguous arrays, which need no copy.
    """
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    flags = array.transpose(order).flags
    return tuple(order if flags.c_contiguous and flags.aligned else range(array.ndim))


def strides_in(order: tuple[int, ...], shape: Shape) -> Strides:
    """The strides (bytes) of an array of `shape` that is contiguous in the `order` of its axes."""
    strides = [0] * len(shape)
    step = 4
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)
