"""What a statement means, in plain NumPy: the definition that every schedule is tested against.

Each index is an axis of its own, so that an expression's value is an array over the indices it
depends on, of size 1 along all others; a reduction runs along the axes of its indices.

Two rules say what a read outside its tensor's box is. Inside a reduction, it leaves the point out
of the innermost reduction around it: zero padding for `sum`, minus infinity for `max`, and a
smaller divisor for `mean`. Outside any reduction, it is 0.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate.notation.access import indices_of
from striate.notation.errors import NotationError
from striate.notation.ir import (
    IDENTITIES,
    Affine,
    Apply,
    Constant,
    Expression,
    Position,
    Read,
    Reduce,
    Shape,
    Statement,
    walk,
)
from striate.notation.printing import to_text

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Elements that a reduction handles at once; larger ones run over their first indices in Python.
_BLOCK = 1 << 20

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negative": np.negative,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "relu": lambda x: np.maximum(x, 0),
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "abs": np.abs,
    "less": lambda a, b: np.less(a, b).astype(np.float64),
    "less_equal": lambda a, b: np.less_equal(a, b).astype(np.float64),
    "equal": lambda a, b: np.equal(a, b).astype(np.float64),
    "not_equal": lambda a, b: np.not_equal(a, b).astype(np.float64),
    "where": lambda condition, a, b: np.where(condition != 0, a, b),
}

_REDUCTIONS: Mapping[str, np.ufunc] = {
    "sum": np.add,
    "mean": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "prod": np.multiply,
}


def interpret(
    statement: Statement, operands: Mapping[str, NDArray[np.floating[Any]]]
) -> NDArray[Any]:
    """The output of `statement`; computed in float64, float64 where an operand is, else float32.

    Raises NotationError where an operand is missing or not of its shape.
    """
    arrays = {}
    for name, shape in statement.shapes:
        if name not in operands or np.shape(operands[name]) != shape:
            given = np.shape(operands[name]) if name in operands else "nothing"
            raise NotationError(
                f"operand {name} must have shape {shape}; given: {given}",
                to_text(statement.equation),
                dict(statement.shapes),
            )
        arrays[name] = np.asarray(operands[name])
    double = any(array.dtype == np.float64 for array in arrays.values())
    with np.errstate(all="ignore"):
        if _pointwise(statement):
            result = np.empty(statement.shape)
            result[...] = _at_once(statement.equation.expression, arrays)
        else:
            result = _Interpreter(statement, arrays).output()
    return result if double else result.astype(np.float32)


def _pointwise(statement: Statement) -> bool:
    """Whether every read is at the output's own element: then no index need be followed."""
    access = statement.equation.output.access
    if any(affine.index is None for affine in access) or len(set(access)) != len(access):
        return False
    if any(shape != statement.shape for _, shape in statement.shapes):
        return False
    parts = list(walk(statement.equation.expression))
    if any(isinstance(part, Reduce | Position) for part in parts):
        return False
    return all(part.access == access for part in parts if isinstance(part, Read))


def _at_once(expression: Expression, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The value of an expression without indices, for whole arrays."""
    match expression:
        case Constant(value):
            return np.float64(value)
        case Read(tensor, _):
            return arrays[tensor].astype(np.float64)
        case Apply(function, arguments):
            return _FUNCTIONS[function](*[_at_once(a, arrays) for a in arguments])
        case _:
            raise AssertionError(f"{expression} follows an index")


class _Interpreter:
    """Evaluates the expressions of one statement."""

    def __init__(self, statement: Statement, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.statement = statement
        self.arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
        self.extents = dict(statement.extents)
        self.axis = {index: number for number, index in enumerate(self.extents)}
        # The value of every index: its own axis, or one number while a loop runs over it.
        self.places = {index: self.along(index) for index in self.extents}

    def along(self, index: str) -> Places:
        """0, 1, 2, ... along the index's axis."""
        shape = [1] * len(self.extents)
        shape[self.axis[index]] = self.extents[index]
        return np.arange(self.extents[index]).reshape(shape)

    def output(self) -> Numbers:
        """The expression's value at every output index, written where the left side says."""
        value, _ = self.evaluate(self.statement.equation.expression)
        access = self.statement.equation.output.access
        indices = indices_of(access)
        if not access:
            return value.reshape(())
        full = [self.extents[i] if i in indices else 1 for i in self.extents]
        result = np.zeros(self.statement.shape)
        result[tuple([self.affine(a) for a in access])] = np.broadcast_to(value, full)
        return result

    def affine(self, value: Affine) -> Places:
        """The value before an exact division, or after one that rounds down."""
        terms = [coefficient * self.places[index] for index, coefficient in value.terms]
        total: Places = sum(terms, np.full([1] * len(self.extents), value.offset))
        return total if value.exact else total // value.divisor

    def evaluate(self, expression: Expression) -> tuple[Numbers, Mask | None]:
        """The value, and where all its reads (outside inner reductions) are inside their boxes.

        No mask stands for everywhere.
        """
        match expression:
            case Constant(value):
                return np.full([1] * len(self.extents), value), None
            case Position(index):
                return self.places[index].astype(np.float64), None
            case Read():
                return self.read(expression)
            case Apply(function, arguments):
                values, masks = zip(*[self.evaluate(a) for a in arguments], strict=True)
                return _FUNCTIONS[function](*values), _both(*masks)
            case Reduce():
                return self.reduce(expression), None

    def read(self, read: Read) -> tuple[Numbers, Mask | None]:
        """The tensor's elements, 0 outside its box."""
        inside: Mask = np.ones([1] * len(self.extents), bool)
        places = []
        for value, size in zip(read.access, self.arrays[read.tensor].shape, strict=True):
            place = self.affine(value)
            if value.exact:
                inside = inside & (place % value.divisor == 0)
                place = place // value.divisor
            inside = inside & (place >= 0) & (place < size)
            places.append(np.clip(place, 0, size - 1))
        elements = self.arrays[read.tensor][tuple(places)]
        if not places:
            elements = elements.reshape([1] * len(self.extents))
        if inside.all():
            return elements, None
        return np.where(inside, elements, 0), inside

    def reduce(self, node: Reduce) -> Numbers:
        """The reduction of the points that are kept; of none, the identity (0 for `mean`)."""
        looped, axes = self.split(node)
        combine = _REDUCTIONS[node.kind]
        total: Any = None
        count: Any = 0
        for point in itertools.product(*[range(self.extents[i]) for i in looped]):
            for index, place in zip(looped, point, strict=True):
                self.places[index] = np.full([1] * len(self.extents), place)
            value, kept = self.evaluate(node.body)
            shape = self.domain(value.shape, kept, axes)
            mask = np.broadcast_to(True if kept is None else kept, shape)
            value = np.where(mask, value, IDENTITIES[node.kind])
            part = combine.reduce(value, axis=axes, keepdims=True)
            total = part if total is None else combine(total, part)
            count = count + mask.sum(axis=axes, keepdims=True)
        for index in looped:
            self.places[index] = self.along(index)
        result: Numbers = total / np.maximum(count, 1) if node.kind == "mean" else total
        return result

    def domain(self, shape: Shape, kept: Mask | None, axes: tuple[int, ...]) -> Shape:
        """The shape over which a body is reduced: all of the axes, also where it is constant."""
        sizes = list(np.broadcast_shapes(shape, () if kept is None else kept.shape))
        for index, axis in self.axis.items():
            if axis in axes:
                sizes[axis] = self.extents[index]
        return tuple(sizes)

    def split(self, node: Reduce) -> tuple[list[str], tuple[int, ...]]:
        """The indices to loop over in Python, and the axes of those to reduce as arrays."""
        used = {
            i for part in walk(node.body) if isinstance(part, Read) for i in indices_of(part.access)
        }
        used |= set(node.indices)
        size = math.prod(self.places[index].size for index in used if index in self.places)
        looped: list[str] = []
        for index in node.indices:
            if size <= _BLOCK:
                break
            size //= self.extents[index]
            looped.append(index)
        return looped, tuple([self.axis[i] for i in node.indices if i not in looped])


def _both(*masks: Mask | None) -> Mask | None:
    """Where all masks hold."""
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    result = given[0]
    for mask in given[1:]:
        result = result & mask
    return result
