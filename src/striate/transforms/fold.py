"""Fold what is known before the run: affine maps of features (batch norm) into weights."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from striate.network.graph import Array, Computed, Concatenated, Graph, Node, Parameter
from striate.notation import interpret
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Equation,
    Expression,
    Read,
    Reduce,
    Statement,
    reads,
)
from striate.transforms.rewrite import count_uses, has_reduction, reads_in_place, rebuild, transform


def fold(graph: Graph) -> Graph:
    """Turn affine maps with known coefficients into `x * scale + shift`, and fold them.

        y[..., j] = (sum(W[..., j] * x) + B[j] - m[j]) / sqrt(v[j] + eps) * g[j] + h[j]
    becomes, with scale and shift computed once in float64,
        y[..., j] = sum((W * scale)[..., j] * x) + (B * scale + shift)[j]
    if the sum has no other reader.
    """
    uses = count_uses(graph)
    single = {id(node) for node in graph.nodes() if uses[id(node)] == 1}
    single -= {id(output) for output in graph.outputs}

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        match node:
            case Computed():
                old = node
                node = replace(node, operands=tuple((n, new(o)) for n, o in node.operands))
                found = _affine_map(node)
                if found is None:
                    return node
                tensor, scale, shift = found
                producer = dict(node.operands)[tensor]
                if isinstance(producer, Computed) and id(dict(old.operands)[tensor]) in single:
                    folded = _into_contraction(producer, scale, shift)
                    if folded is not None:
                        return folded
                return _scale_and_shift(node, tensor, scale, shift)
            case Concatenated():
                return replace(node, parts=tuple(new(part) for part in node.parts))
            case _:
                return node

    return rebuild(graph, change)


Vector = NDArray[np.float64]


def _affine_map(node: Computed) -> tuple[str, Vector, Vector] | None:
    """(operand, scale, shift) if the node is `operand * scale[i] + shift[i]` with known numbers."""
    statement = node.statement
    expression = statement.equation.expression
    unknown = [name for name, operand in node.operands if not isinstance(operand, Parameter)]
    if has_reduction(expression) or len(unknown) != 1 or len(node.operands) == 1:
        return None
    tensor = unknown[0]
    last = statement.equation.output.access[-1]
    others = [read for read in reads(expression) if read.tensor != tensor]
    if not reads_in_place(statement, tensor, dict(statement.shapes)[tensor]):
        return None
    if any(read.access != (last,) for read in others) or _degree(expression, tensor) != 1:
        return None
    at_zero, at_one = (_at(node, tensor, value) for value in (0.0, 1.0))
    return tensor, at_one - at_zero, at_zero


def _degree(expression: Expression, tensor: str) -> int:
    """The degree of `expression` as a polynomial in `tensor`; 2 where it isn't one."""
    match expression:
        case Read(name, _):
            return int(name == tensor)
        case Apply(("add" | "subtract" | "negative"), arguments):
            return max(_degree(a, tensor) for a in arguments)
        case Apply("multiply", arguments):
            return sum(_degree(a, tensor) for a in arguments)
        case Apply("divide", (numerator, denominator)):
            return 2 if _degree(denominator, tensor) else _degree(numerator, tensor)
        case Apply(_, arguments):
            return 2 if any(_degree(a, tensor) for a in arguments) else 0
        case _:
            return 0


def _at(node: Computed, tensor: str, value: float) -> Vector:
    """The node's value for each feature where `tensor` is `value`, in float64."""
    statement = node.statement
    last = statement.equation.output.access[-1]

    def change(part: Expression) -> Expression | None:
        return Constant(value) if isinstance(part, Read) and part.tensor == tensor else None

    expression = transform(statement.equation.expression, change)
    equation = Equation(Read("value", (last,)), expression)
    features = statement.shape[-1:]
    shapes = tuple((name, shape) for name, shape in statement.shapes if name != tensor)
    extents = tuple((i, n) for i, n in statement.extents if last.coefficient(i))
    known = {
        name: operand.array.astype(np.float64)
        for name, operand in node.operands
        if isinstance(operand, Parameter)
    }
    return interpret(Statement(equation, shapes, extents, features), known).astype(np.float64)


def _into_contraction(node: Computed, scale: Vector, shift: Vector) -> Computed | None:
    """`node * scale + shift` where node is `sum(W * x)` or `sum(W * x) + B` with known W and B."""
    statement = node.statement
    last = statement.equation.output.access[-1]
    named = dict(node.operands)
    found = _sum_and_bias(statement.equation.expression)
    if found is None:
        return None
    reduction, left, right, bias = found
    if bias is not None and not (
        bias.access == (last,) and isinstance(named[bias.tensor], Parameter)
    ):
        return None
    tensors = [read.tensor for read in reads(statement.equation.expression)]
    for read in (left, right):
        weight = named[read.tensor]
        if not isinstance(weight, Parameter) or tensors.count(read.tensor) > 1:
            continue
        if read.access[-1] == last and weight.shape[-1:] == scale.shape:
            break
    else:
        return None
    added = shift
    name = _bias_name(statement, bias)
    if bias is not None:
        parameter = named[bias.tensor]
        assert isinstance(parameter, Parameter)
        added = parameter.array.astype(np.float64) * scale + shift
    named[read.tensor] = Parameter(weight.name, _scaled(weight.array, scale))
    named[name] = Parameter(f"{weight.name} (folded bias)", added.astype(np.float32))
    return _with_bias(node, reduction, Read(name, (last,)), named)


def _sum_and_bias(expression: Expression) -> tuple[Reduce, Read, Read, Read | None] | None:
    """(sum, left, right, bias) of `sum(left * right)` or `sum(left * right) + bias`."""
    bias: Read | None = None
    match expression:
        case Apply("add", (Reduce() as reduction, Read() as added)):
            bias = added
        case Reduce() as reduction:
            pass
        case _:
            return None
    match reduction:
        case Reduce("sum", _, Apply("multiply", (Read() as left, Read() as right))):
            return reduction, left, right, bias
        case _:
            return None


def _bias_name(statement: Statement, bias: Read | None) -> str:
    if bias is not None:
        return bias.tensor
    taken = {name for name, _ in statement.shapes}
    return next(name for name in ("B", "B2", "B3", "B4") if name not in taken)


def _with_bias(node: Computed, reduction: Reduce, bias: Read, named: dict[str, Node]) -> Computed:
    statement = node.statement
    expression = Apply("add", (reduction, bias))
    order = list(dict.fromkeys(read.tensor for read in reads(expression)))
    return replace(
        node,
        statement=replace(
            statement,
            equation=replace(statement.equation, expression=expression),
            shapes=tuple((name, named[name].shape) for name in order),
        ),
        operands=tuple((name, named[name]) for name in order),
    )


def _scaled(array: Array, scale: Vector) -> Array:
    """`array * scale` over the last axis, kept in the memory order of `array`."""
    return np.multiply(array, scale.astype(np.float32), order="K")


def _scale_and_shift(node: Computed, tensor: str, scale: Vector, shift: Vector) -> Computed:
    statement = node.statement
    output = statement.equation.output
    last: tuple[Affine, ...] = (output.access[-1],)
    data = Read(tensor, output.access)
    product = Apply("multiply", (data, Read("scale", last)))
    expression = Apply("add", (product, Read("shift", last)))
    named: dict[str, Node] = {
        tensor: dict(node.operands)[tensor],
        "scale": Parameter(f"{node.label} scale", scale.astype(np.float32)),
        "shift": Parameter(f"{node.label} shift", shift.astype(np.float32)),
    }
    return Computed(
        replace(
            statement,
            equation=replace(statement.equation, expression=expression),
            shapes=tuple((name, operand.shape) for name, operand in named.items()),
        ),
        tuple(named.items()),
        node.label,
    )
