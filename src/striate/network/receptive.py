"""Receptive fields: the pixels that a cell of a layer depends on, by arithmetic on its accesses.

A cell is one place of a node along the image's axes, whatever its feature. Along each axis its
field is an interval, found by walking the graph once: what a statement reads of its operand at
affine functions of the output's index, the operand in turn sees of the image. Several reads and
several branches are united, and what lies outside an operand's box is not read.

The definition of size, stride and offset is that of Araujo, Norris and Sim, Computing Receptive
Fields of Convolutional Neural Networks (Distill, 2019).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from striate.network.graph import Computed, Concatenated, Graph, Node, Parameter
from striate.notation.ir import Affine, Apply, Expression, Read, Reduce, Shape

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """In an image without end, cell p sees the pixels from `low + stride*p` to `high + stride*p`.

    Both ends are rounded inwards, for a division in an access (an upsampled layer) may leave a
    fraction; then the window holds what any cell sees, and most see less.
    """

    low: Fraction
    high: Fraction
    stride: Fraction

    @property
    def size(self) -> int:
        """The most pixels that a cell sees."""
        return math.floor(self.high - self.low) + 1

    @property
    def offset(self) -> int:
        """The first pixel that cell 0 sees; negative in the padding."""
        return math.ceil(self.low)


@dataclass(frozen=True)
class Field:
    """The pixels along one axis of the image that the cells of a layer depend on.

    Cell p sees the `pixels(p)`, which all lie within the image. `window` says what a cell would see
    in an image without end; it is None where no two numbers say it for all cells alike: after
    branches of different strides, or windows of different sizes (adaptive pooling). Where the layer
    has left the axis behind (a global pool, a linear layer) there is a single cell, and the stride
    is 0.
    """

    image: int
    window: Window | None
    _axis: int | None
    _first: Places
    _last: Places

    @property
    def cells(self) -> int:
        """How many cells there are along the axis."""
        return len(self._first)

    @property
    def size(self) -> int:
        """The pixels that a cell sees in an image without end, or else the most in this one."""
        if self.window is not None:
            return self.window.size
        return max(0, int((self._last - self._first).max()) + 1)

    @property
    def stride(self) -> int | float | None:
        """The pixels from a cell's field to that of the next; None where they are not all equal."""
        if self.window is None:
            return None
        stride = self.window.stride
        return int(stride) if stride.denominator == 1 else float(stride)

    @property
    def offset(self) -> int | None:
        """The first pixel of cell 0's field, negative in the padding; None as for `stride`."""
        return None if self.window is None else self.window.offset

    def centre(self, cell: int) -> float:
        """The middle of the pixels that `cell` sees, in an image without end if that is known."""
        if self.window is not None:
            middle = (self.window.low + self.window.high) / 2
            return float(middle + self.window.stride * cell)
        seen = self.pixels(cell)
        return (seen.start + seen.stop - 1) / 2

    def pixels(self, cell: int) -> range:
        """The pixels from the first to the last that `cell` depends on; none if it is constant."""
        if not 0 <= cell < self.cells:
            raise ValueError(f"cell {cell} of {self.cells}; expected 0 to {self.cells - 1}")
        first, last = int(self._first[cell]), int(self._last[cell])
        return range(first, last + 1) if first <= last else range(0)


def receptive_fields(graph: Graph) -> dict[Node, tuple[Field, ...]]:
    """For each node the fields along the image's axes: those of `[b, x, y, i]` are x and y.

    The image is the graph's first input. What depends on nothing of it has no entry.
    """
    image = graph.inputs[0]
    axes = range(1, len(image.shape) - 1)
    found: dict[Node, tuple[Field, ...]] = {image: tuple(_own(image.shape[k], k) for k in axes)}
    for node in graph.nodes():
        if node is image:
            continue
        seen = [
            united(list(_through(node, found, number)), node.shape) for number in range(len(axes))
        ]
        fields = tuple([field for field in seen if field is not None])
        if fields:
            found[node] = fields
    return found


def _own(size: int, axis: int) -> Field:
    """Every pixel sees itself."""
    places = np.arange(size)
    return Field(size, Window(Fraction(0), Fraction(0), Fraction(1)), axis, places, places)


def _through(node: Node, found: dict[Node, tuple[Field, ...]], number: int) -> Iterator[Field]:
    """What `node` sees along one axis of the image through each of its reads or parts."""
    match node:
        case Computed(statement, operands, _):
            named = dict(operands)
            for read, factors in weighed(statement.equation.expression):
                operand = named[read.tensor]
                if operand in found:
                    known = list(_tables(factors, named))
                    yield _Reading(node, read, known, found[operand][number]).field()
        case Concatenated(parts, axis, _):
            start = 0
            for part in parts:
                if part in found:
                    yield _placed(found[part][number], axis, start, node.shape[axis])
                start += part.shape[axis]


def _tables(
    factors: Iterable[Read], named: Mapping[str, Node]
) -> Iterator[tuple[tuple[str, ...], NDArray[np.float32]]]:
    """The factors that are parameters read at indices alone: their indices and values."""
    for factor in factors:
        node = named[factor.tensor]
        indices = [value.index for value in factor.access if value.index]
        if isinstance(node, Parameter) and len(indices) == len(node.shape):
            yield tuple(indices), node.array


def weighed(
    expression: Expression, factors: tuple[Read, ...] = ()
) -> Iterator[tuple[Read, tuple[Read, ...]]]:
    """Every read of `expression`, with the reads that it is multiplied by."""
    match expression:
        case Read():
            yield expression, factors
        case Apply("multiply", (a, b)):
            yield from weighed(a, factors + tuple(_product(b)))
            yield from weighed(b, factors + tuple(_product(a)))
        case Apply(_, arguments):
            for argument in arguments:
                yield from weighed(argument, factors)
        case Reduce(_, _, body):
            yield from weighed(body, factors)
        case _:
            pass


def _product(expression: Expression) -> Iterator[Read]:
    """The reads that are factors of `expression`."""
    match expression:
        case Read():
            yield expression
        case Apply("multiply", arguments):
            for argument in arguments:
                yield from _product(argument)
        case _:
            pass


class _Reading:
    """One read of an operand: along `field`'s axis, at `value` of the statement's indices."""

    def __init__(
        self,
        node: Computed,
        read: Read,
        known: Sequence[tuple[tuple[str, ...], NDArray[np.float32]]],
        field: Field,
    ) -> None:
        self.operand = field
        self.extents = dict(node.statement.extents)
        self.value = Affine(()) if field._axis is None else read.access[field._axis]
        own = [index for index, _ in self.value.terms]
        outer = node.statement.equation.output.access
        axes = {value.index: axis for axis, value in enumerate(outer) if value.index}
        # A table of this axis alone, such as `R[p,u]`, ties an output's index to the operand's.
        self.tables = [
            (indices, array)
            for indices, array in known
            if set(indices) & set(own) and len(set(indices) - set(own)) <= 1
        ]
        tied = {index for indices, _ in self.tables for index in indices}
        # Along a diagonal the field would depend on two axes: then it is that of all cells.
        followed = {index for index in own if index in axes} or tied & set(axes)
        self.index = followed.pop() if len(followed) == 1 else None
        self.axis = axes[self.index] if self.index else None
        self.others = [index for index in own if index != self.index]

    def field(self) -> Field:
        """What the node's cells see through this read."""
        used, irregular = self.used()
        places, inside = self.places()
        inside = inside & used
        cell = np.where(inside, places, 0)
        first = np.where(inside, self.operand._first[cell], self.operand.image)
        last = np.where(inside, self.operand._last[cell], -1)
        inner = tuple(range(1, first.ndim))
        window = None if irregular else self.window()
        return Field(self.operand.image, window, self.axis, first.min(inner), last.max(inner))

    def grid(self) -> dict[str, Places]:
        """The values of the followed index (or one dummy) and of all others, an axis each."""
        indices = [self.index or "", *self.others]
        ranges = [np.arange(self.extents.get(index, 1)) for index in indices]
        return dict(zip(indices, np.ix_(*ranges), strict=True))

    def places(self) -> tuple[Places, NDArray[np.bool_]]:
        """The operand's cell at every point of the grid, and whether there is one."""
        grid = self.grid()
        zero = sum(grid.values(), np.zeros((), np.int64)) * 0
        total = zero + self.value.offset
        for index, coefficient in self.value.terms:
            total = total + coefficient * grid[index]
        inside = total % self.value.divisor == 0 if self.value.exact else zero == 0
        cell = total // self.value.divisor
        return cell, inside & (cell >= 0) & (cell < self.operand.cells)

    def used(self) -> tuple[NDArray[np.bool_], bool]:
        """Where no known factor is 0, and whether that is elsewhere for different cells.

        Only factors that are a table of this axis's own indices count (the weights of adaptive
        pooling, `R[p,u]`), and none with a row of zeros, which is yet to be trained.
        """
        grid = self.grid()
        used, irregular = np.ones([1] * len(grid), bool), False
        for indices, array in self.tables:
            if self.index not in indices or not set(indices) <= set(grid):
                continue
            nonzero = array[tuple([grid[index] for index in indices])] != 0
            if nonzero.any(tuple(range(1, nonzero.ndim))).all():
                used = used & nonzero
                irregular = irregular or not nonzero.all()
        return used, irregular

    def window(self) -> Window | None:
        """The same in an image without end."""
        inner = self.operand.window
        if inner is None:
            return None
        low = high = self.value.offset
        for index, coefficient in self.value.terms:
            if index != self.index:
                reach = coefficient * (self.extents[index] - 1)
                low, high = low + min(reach, 0), high + max(reach, 0)
        divisor = self.value.divisor
        lost = 0 if self.value.exact else divisor - 1
        ends = inner.stride * Fraction(low - lost, divisor), inner.stride * Fraction(high, divisor)
        step = Fraction(self.value.coefficient(self.index or ""), divisor)
        return Window(inner.low + min(ends), inner.high + max(ends), inner.stride * step)


def _placed(field: Field, axis: int, start: int, total: int) -> Field:
    """The field of a part that begins at `start` of the `total` places of `axis`."""
    if field._axis != axis:
        return field
    first = np.full(total, field.image)
    last = np.full(total, -1)
    first[start : start + field.cells] = field._first
    last[start : start + field.cells] = field._last
    return Field(field.image, None, axis, first, last)


def united(fields: Sequence[Field], shape: Shape) -> Field | None:
    """What cells see that see all of `fields`; those that follow no axis are seen by every cell."""
    if not fields:
        return None
    axes = {field._axis for field in fields} - {None}
    axis = axes.pop() if len(axes) == 1 else None
    along = [field if field._axis == axis else _everywhere(field) for field in fields]
    cells = 1 if axis is None else shape[axis]
    first = np.min([np.broadcast_to(field._first, cells) for field in along], axis=0)
    last = np.max([np.broadcast_to(field._last, cells) for field in along], axis=0)
    return Field(fields[0].image, _hull([field.window for field in along]), axis, first, last)


def _everywhere(field: Field) -> Field:
    """What all cells of `field` see together."""
    window = field.window
    if window is not None:
        ends = [window.stride * cell for cell in (0, field.cells - 1)]
        window = Window(window.low + min(ends), window.high + max(ends), Fraction(0))
    first, last = field._first.min(keepdims=True), field._last.max(keepdims=True)
    return Field(field.image, window, None, first, last)


def _hull(windows: Iterable[Window | None]) -> Window | None:
    """The window around all of them, if their strides agree."""
    known = list(windows)
    for a, b in itertools.pairwise(known):
        if a is None or b is None or a.stride != b.stride:
            return None
    regular = [window for window in known if window is not None]
    if not regular:
        return None
    low, high = min(window.low for window in regular), max(window.high for window in regular)
    return Window(low, high, regular[0].stride)
