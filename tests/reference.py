"""A graph evaluated node by node with NumPy: faster than the interpreter, and held to it by tests.

Sums of products go through einsum one tap of the window at a time; everything else is evaluated
whole, one value of the reduction's indices at a time. Points outside a tensor's box are marked.
"""

from itertools import product

import numpy as np

from striate.network.graph import Computed, Concatenated, Derived, Input, Parameter
from striate.notation.ir import Apply, Constant, Position, Read, Reduce

IDENTITY = {"sum": 0.0, "max": -np.inf, "min": np.inf, "prod": 1.0}
COMBINE = {"sum": np.add, "max": np.maximum, "min": np.minimum, "prod": np.multiply}
FUNCTIONS = {
    "where": lambda c, x, y: np.where(c != 0, x, y),
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negative": np.negative,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "relu": lambda x: np.maximum(x, 0),
    "clip": np.clip,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def evaluate(graph, *arrays, keep=None):
    """The outputs of `graph` on `arrays`; `keep` (a dict) receives every node's value by label."""
    values = {id(node): array for node, array in zip(graph.inputs, arrays, strict=True)}
    for node in graph.nodes():
        match node:
            case Input():
                pass
            case Parameter(_, array):
                values[id(node)] = array
            case Derived():
                values[id(node)] = derived(node)
            case Concatenated(parts, axis, _):
                values[id(node)] = np.concatenate([values[id(part)] for part in parts], axis)
            case Computed(statement, operands, label):
                given = {name: values[id(operand)] for name, operand in operands}
                values[id(node)] = run(statement, given)
                assert values[id(node)].shape == node.shape, label
        if keep is not None and hasattr(node, "label"):
            keep[node.label] = values[id(node)]
    return tuple([values[id(node)] for node in graph.outputs])


def derived(node):
    """An array made of parameters."""
    if isinstance(node, Parameter):
        return node.array
    return run(node.statement, {name: derived(operand) for name, operand in node.operands})


def run(statement, operands):
    """The value of one statement, float32."""
    output = statement.equation.output
    extents = dict(statement.extents)
    axes = list(dict.fromkeys(index for affine in output.access for index, _ in affine.terms))
    evaluation = Evaluation(operands, extents, axes)
    value, inside = evaluation.expression(statement.equation.expression, {})
    value = np.where(inside, value, 0) if inside is not True else value
    value = np.broadcast_to(value, [extents[index] for index in axes]).astype(np.float32)
    if all(affine.index for affine in output.access):
        return value
    result = np.empty(statement.shape, np.float32)
    result[tuple([evaluation.places(affine, axes, {}) for affine in output.access])] = value
    return result


class Evaluation:
    """One statement's evaluation; arrays run over `axes`, the output's indices, by broadcasting."""

    def __init__(self, operands, extents, axes):
        self.operands, self.extents, self.axes = operands, extents, axes

    def expression(self, node, bound):
        """The value over the axes, and where it is inside all boxes (True: everywhere)."""
        match node:
            case Constant(value):
                return np.float32(value), True
            case Position(index):
                if index in bound:
                    return np.float32(bound[index]), True
                shape = [self.extents[index] if a == index else 1 for a in self.axes]
                return np.arange(self.extents[index], dtype=np.float32).reshape(shape), True
            case Read():
                return self.read(node, self.axes, bound)
            case Apply(function, arguments):
                pairs = [self.expression(argument, bound) for argument in arguments]
                inside = True
                for _, where in pairs:
                    inside = where if inside is True else inside & where
                return FUNCTIONS[function](*[value for value, _ in pairs]), inside
            case Reduce("sum", indices, Apply("multiply", (Read() as left, Read() as right))):
                return self.products(indices, left, right, bound), True
            case Reduce(kind, indices, body):
                return self.reduce(kind, indices, body, bound), True
        raise NotImplementedError(node)

    def reduce(self, kind, indices, body, bound):
        result, count = np.float32(IDENTITY.get(kind, 0)), 0
        for values in product(*[range(self.extents[index]) for index in indices]):
            value, inside = self.expression(body, bound | dict(zip(indices, values, strict=True)))
            if inside is not True:
                value = np.where(inside, value, np.float32(IDENTITY.get(kind, 0)))
            result, count = COMBINE.get(kind, np.add)(result, value), count + inside
        return result / np.maximum(count, 1) if kind == "mean" else result

    def products(self, indices, left, right, bound):
        accesses = (*left.access, *right.access)
        taps = [i for i in indices if any(i in dict(a.terms) and not a.index for a in accesses)]
        # An index within the features is contracted whole, as the window's are not.
        taps = [i for i in taps if i in ("u", "v")]
        letters = {index: chr(97 + k) for k, index in enumerate(self.extents)}
        result = np.float32(0)
        for values in product(*[range(self.extents[index]) for index in taps]):
            here = bound | dict(zip(taps, values, strict=True))
            parts, names = [], []
            for read in (left, right):
                axes = [i for i in self.extents if i not in here and occurs(i, read)]
                value, inside = self.read(read, axes, here)
                parts.append(value if inside is True else np.where(inside, value, 0))
                names.append("".join(letters[i] for i in axes))
            axes = [i for i in self.axes if any(letters[i] in name for name in names)]
            formula = f"{','.join(names)}->{''.join(letters[i] for i in axes)}"
            value = np.einsum(formula, *parts, optimize=True)
            shape = [self.extents[i] if i in axes else 1 for i in self.axes]
            result = result + value.reshape(shape)
        return result

    def read(self, read, axes, bound):
        """The elements at all places, an axis for each of `axes`, and which are inside."""
        array = self.operands[read.tensor]
        plain = self.slices(read, axes, bound, array)
        if plain is not None:
            return plain
        places = [self.places(affine, axes, bound) for affine in read.access]
        inside = True
        for affine, place, size in zip(read.access, places, array.shape, strict=True):
            where = (place >= 0) & (place < size)
            if affine.exact:
                where &= self.numerator(affine, axes, bound) % affine.divisor == 0
            inside = where if inside is True else inside & where
        clipped = [np.clip(p, 0, n - 1) for p, n in zip(places, array.shape, strict=True)]
        return array[tuple(clipped)], True if np.all(inside) else inside

    def slices(self, read, axes, bound, array):
        """As `read`, where every axis steps along one index or stands still; else None."""
        source, target, order = [], [], []
        shape = []
        for affine, size in zip(read.access, array.shape, strict=True):
            free = [(i, c) for i, c in affine.terms if i not in bound]
            start = affine.offset + sum(c * bound[i] for i, c in affine.terms if i in bound)
            if affine.divisor > 1 or len(free) > 1:
                return None
            if not free:
                if not 0 <= start < size:
                    return None
                source.append(start)
                continue
            (index, step) = free[0]
            if step < 1 or index in order or index not in axes:
                return None
            first = max(0, -(start // step))
            last = min(self.extents[index], (size - 1 - start) // step + 1)
            if last <= first:
                return None
            source.append(slice(start + step * first, start + step * (last - 1) + 1, step))
            target.append(slice(first, last))
            order.append(index)
            shape.append(self.extents[index])
        whole = all(t == slice(0, n) for t, n in zip(target, shape, strict=True))
        value, inside = array[tuple(source)], True
        if not whole:
            padded = np.zeros(shape, np.float32)
            padded[tuple(target)] = value
            inside = np.zeros(shape, bool)
            inside[tuple(target)] = True
            value = padded
        return self.spread(value, order, axes), self.spread(inside, order, axes)

    def spread(self, value, order, axes):
        if value is True:
            return True
        value = value.transpose([order.index(index) for index in axes if index in order])
        return value.reshape([self.extents[i] if i in order else 1 for i in axes])

    def numerator(self, affine, axes, bound):
        place = np.int64(affine.offset)
        for index, coefficient in affine.terms:
            if index in bound:
                place = place + coefficient * bound[index]
            else:
                shape = [self.extents[index] if axis == index else 1 for axis in axes]
                place = place + coefficient * np.arange(self.extents[index]).reshape(shape)
        return place

    def places(self, affine, axes, bound):
        return self.numerator(affine, axes, bound) // affine.divisor


def occurs(index, read):
    return any(index in dict(affine.terms) for affine in read.access)
