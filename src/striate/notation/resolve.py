"""`Equation` and shapes to `Statement`: the checks, and the size of every index.

An index that stands alone in an axis has that axis's size. For the others the window rule: with
`low(p)` and `high(p)` the least and greatest place that an axis of size H is read at for one value
of p, the image is taken to be padded by `a = max(0, -low(0))` on both sides, and p runs as far as
`high(p) <= H - 1 + a`. Ceil mode rounds up, and drops a last window that starts in the padding on
the right. Explicit sizes come before both rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from striate.notation import access
from striate.notation.errors import NotationError
from striate.notation.ir import (
    Affine,
    Equation,
    Position,
    Read,
    Reduce,
    Shape,
    Statement,
    reads,
    walk,
)
from striate.notation.printing import affine_text, read_text, to_text


def resolve(
    equation: Equation,
    shapes: Mapping[str, Shape],
    *,
    sizes: Mapping[str, int] | None = None,
    ceil_mode: bool = False,
) -> Statement:
    """The statement that `equation` makes on operands of these shapes; raises NotationError.

    `sizes` (elements) is added to the equation's own and wins over it.
    """
    named = tuple([(name, tuple(shape)) for name, shape in shapes.items()])
    return _resolve(equation, named, tuple((sizes or {}).items()), ceil_mode)


@lru_cache(maxsize=8192)
def _resolve(
    equation: Equation,
    shapes: tuple[tuple[str, Shape], ...],
    sizes: tuple[tuple[str, int], ...],
    ceil_mode: bool,
) -> Statement:
    return _Resolver(equation, dict(shapes), dict(sizes), ceil_mode).statement()


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of one read: `value` runs along an axis of `size` elements."""

    read: Read
    number: int
    value: Affine
    size: int

    def __str__(self) -> str:
        return f"axis {self.number} of {read_text(self.read)}"


class _Resolver:
    """Finds the sizes of one equation's indices."""

    def __init__(
        self,
        equation: Equation,
        shapes: dict[str, Shape],
        sizes: dict[str, int],
        ceil_mode: bool,
    ) -> None:
        self.equation = equation
        self.shapes = shapes
        self.sizes = dict(equation.sizes) | sizes
        self.ceil_mode = ceil_mode
        self.extents: dict[str, int] = {}

    def error(self, problem: str) -> NotationError:
        return NotationError(problem, to_text(self.equation), self.shapes)

    def statement(self) -> Statement:
        output, expression = self.equation.output, self.equation.expression
        nodes = list(walk(expression))
        indices = list(access.indices_of(output.access))
        for node in nodes:
            if isinstance(node, Reduce):
                indices += [index for index in node.indices if index not in indices]
        tensors = list(dict.fromkeys(n.tensor for n in nodes if isinstance(n, Read)))
        self.check_operands(tensors)
        self.check_sizes(indices)
        self.infer(indices)
        return Statement(
            replace(self.equation, sizes=tuple(sorted(self.sizes.items()))),
            tuple([(name, self.shapes[name]) for name in tensors]),
            tuple([(index, self.extents[index]) for index in indices]),
            tuple([self.output_size(value) for value in output.access]),
        )

    def check_operands(self, tensors: list[str]) -> None:
        """Every tensor that is read has a shape, and every shape a tensor."""
        given = ", ".join(self.shapes) or "none"
        for name in tensors:
            if name not in self.shapes:
                raise self.error(f"operand {name} is missing; given: {given}")
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise self.error(
                    f"operand {name} is given, but the equation does not read it; "
                    f"its operands are {', '.join(tensors) or 'none'}"
                )
            for axis, size in enumerate(shape):
                if size < 1:
                    raise self.error(f"axis {axis} of {name} has size {size}; sizes start at 1")

    def check_sizes(self, indices: list[str]) -> None:
        """Explicit sizes are positive and belong to indices of the equation."""
        for index, size in self.sizes.items():
            if index not in indices:
                raise self.error(
                    f"sizes names {index}, which is no index of the equation; "
                    f"its indices are {', '.join(indices) or 'none'}"
                )
            if size < 1:
                raise self.error(f"the size of index {index} is given as {size}; sizes start at 1")

    def axes(self) -> list[_Axis]:
        """All axes of all reads; their number must be the tensor's."""
        found = []
        for read in dict.fromkeys(reads(self.equation.expression)):
            shape = self.shapes[read.tensor]
            if len(read.access) != len(shape):
                raise self.error(
                    f"{read_text(read)} has {len(read.access)} indices, but {read.tensor} "
                    f"has {len(shape)} axes"
                )
            for number, value in enumerate(read.access):
                found.append(_Axis(read, number, value, shape[number]))
        return found

    def infer(self, indices: list[str]) -> None:
        """Give every index its size: explicit, then standing alone, then by the window rule."""
        axes = self.axes()
        self.extents = dict(self.sizes)
        self.agree([(axis.value.index, axis.size, axis) for axis in axes if axis.value.index])
        while len(self.extents) < len(indices):
            found = []
            for axis in axes:
                unknown = [(i, c) for i, c in axis.value.terms if i not in self.extents]
                if len(unknown) == 1:
                    (index, coefficient) = unknown[0]
                    found.append((index, self.window(axis, index, coefficient), axis))
            if not found:
                raise self.undetermined([i for i in indices if i not in self.extents])
            self.agree(found)

    def agree(self, found: list[tuple[str, int, _Axis]]) -> None:
        """Take the sizes found; each index that had none must get one and the same everywhere."""
        fresh: dict[str, tuple[int, _Axis]] = {}
        for index, size, axis in found:
            if index in self.extents:
                continue
            first, where = fresh.setdefault(index, (size, axis))
            if first != size:
                raise self.error(
                    f"index {index} has size {first} by {where}, but {size} by {axis}; "
                    f"if both are meant, say which with sizes={{'{index}': ...}}"
                )
        self.extents |= {index: size for index, (size, _) in fresh.items()}

    def undetermined(self, unknown: list[str]) -> NotationError:
        nodes = walk(self.equation.expression)
        numbers = {node.index for node in nodes if isinstance(node, Position)}
        lonely = [index for index in unknown if index in numbers]
        why = "it stands in no axis alone, or alone but for indices whose sizes are known"
        if lonely:
            why = f"{lonely[0]} is used as a number"
        listed = " and ".join(unknown)
        example = ", ".join(f"'{index}': ..." for index in unknown)
        return self.error(
            f"nothing determines the size of index {listed} ({why}); give it: sizes={{{example}}}"
        )

    def window(self, axis: _Axis, index: str, coefficient: int) -> int:
        """The number of windows that fit: the size of the only unknown index of an axis."""
        value, size = axis.value, axis.size
        known = Affine(
            tuple([(i, c) for i, c in value.terms if i != index]), value.offset, 1, False
        )
        low, high = access.bounds(known, self.extents)
        # Before the division, places 0 to last are read.
        last = size * value.divisor - 1 if not value.exact else (size - 1) * value.divisor
        if coefficient < 0:
            low, high, coefficient = last - high, last - low, -coefficient
        padding = max(0, -low)
        room = last + padding - high
        if room < 0:
            raise self.error(
                f"no value of {index} fits into {axis}: {affine_text(value)} reaches over "
                f"{high - low + 1} places, but the axis has {size}"
                + (f" and {padding} of padding on each side" if padding else "")
            )
        count = room // coefficient + 1
        if self.ceil_mode and room % coefficient and coefficient * count + low <= last:
            count += 1
        return count

    def output_size(self, value: Affine) -> int:
        """The size of an output axis, whose places are to be written once each."""
        places = 1
        for index, coefficient in sorted(value.terms, key=lambda term: term[1]):
            size = self.extents[index]
            if size > 1 and coefficient != places:
                fault = "twice" if coefficient < places else "never"
                raise self.error(
                    f"{affine_text(value)} in the output writes some places {fault}: the step of "
                    f"{index} is {coefficient}, but the indices of smaller steps take {places} "
                    f"places (sizes {self.named_sizes(value)})"
                )
            places *= size
        if value.offset:
            raise self.error(
                f"{affine_text(value)} in the output never writes the first {value.offset} places"
            )
        return places

    def named_sizes(self, value: Affine) -> str:
        return ", ".join(f"{index}={self.extents[index]}" for index, _ in value.terms)
