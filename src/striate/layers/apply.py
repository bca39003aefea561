"""One way from an equation's text to its result, for NumPy arrays and for symbolic nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast

import numpy as np

from striate.layers import scope
from striate.layers.arguments import PERMUTATIONS, Array, Operand, T, as_float32, is_node
from striate.network.graph import Computed, Graph, Input, Node, Parameter
from striate.notation import parse, resolve
from striate.notation.ir import Apply, Equation, Expression, Read, Reduce, Shape, Statement

Number = int | float
Items = tuple[tuple[str, Number], ...]

# The axes that `...` stands for, before the last one (which is i).
_LEADING = ("b", "p", "q", "p1", "p2", "p3", "p4", "p5", "p6", "p7")


def apply(
    text: str,
    operands: Mapping[str, Operand | None],
    like: T,
    *,
    sizes: Mapping[str, int] | None = None,
    ceil_mode: bool = False,
    layout: str = "NHWC",
    label: str = "equation",
    constants: Mapping[str, Number] | None = None,
) -> T:
    """The equation `text` on `operands`: an array, or a node if any operand is one.

    `[...]` in the text stands for all axes of `like`, `[..., i]` for all but the last. With
    layout "NCHW" the axes of x, y and W are those of `[b,i,x,y]` and `W[j,i,u,v]`. Raises
    NotationError where the operands do not fit the equation.
    """
    given = {name: value for name, value in operands.items() if value is not None}
    shapes = tuple([(name, tuple(value.shape)) for name, value in given.items()])
    statement = _statement(
        expand(text, len(like.shape)),
        tuple((constants or {}).items()),
        tuple([type(value) for value in (constants or {}).values()]),
        tuple((sizes or {}).items()),
        shapes,
        ceil_mode,
        layout,
    )
    result: Operand
    if any(is_node(value) for value in given.values()):
        result = draw(statement, given, label)
    else:
        result = run(statement, {name: as_float32(value, name) for name, value in given.items()})
    return cast(T, result)


def expand(text: str, rank: int) -> str:
    """`text` with `...` written out for operands of `rank` axes."""
    if "..." not in text:
        return text
    leading = _LEADING[: max(rank - 1, 0)]
    text = text.replace("[...]", f"[{', '.join((*leading, 'i'))}]" if rank else "[()]")
    return text.replace("..., ", "".join(f"{index}, " for index in leading))


@lru_cache(maxsize=4096)
def _statement(
    text: str,
    constants: Items,
    _kinds: tuple[type, ...],
    sizes: tuple[tuple[str, int], ...],
    shapes: tuple[tuple[str, Shape], ...],
    ceil_mode: bool,
    layout: str,
) -> Statement:
    equation = parse(text, sizes=dict(sizes), **dict(constants))
    for tensor, order in PERMUTATIONS[layout].items():
        equation = permute(equation, tensor, order)
    return resolve(equation, dict(shapes), ceil_mode=ceil_mode)


def permute(equation: Equation, tensor: str, order: Sequence[int]) -> Equation:
    """The equation with the axes of `tensor` in another order, wherever it is read or written.

    Accesses of another number of axes are left alone.
    """

    def visit(node: Expression) -> Expression:
        match node:
            case Read():
                return reorder(node)
            case Apply(function, arguments):
                return Apply(function, tuple([visit(argument) for argument in arguments]))
            case Reduce(kind, indices, body):
                return Reduce(kind, indices, visit(body))
            case _:
                return node

    def reorder(read: Read) -> Read:
        if read.tensor != tensor or len(read.access) != len(order):
            return read
        return replace(read, access=tuple([read.access[axis] for axis in order]))

    return replace(equation, output=reorder(equation.output), expression=visit(equation.expression))


def draw(statement: Statement, operands: Mapping[str, Operand], label: str) -> Computed:
    """A node of the network; arrays among the operands become parameters."""
    drawing = scope.current()
    if drawing is not None:
        label = drawing.label(label)
    named: list[tuple[str, Node]] = []
    for name, _ in statement.shapes:
        value = operands[name]
        if is_node(value):
            named.append((name, cast(Node, value)))
            continue
        array = as_float32(value, name)
        if drawing is not None:
            named.append((name, drawing.parameter(array, name, label)))
        else:
            named.append((name, Parameter(f"{label}.{name}", array)))
    return Computed(statement, tuple(named), label)


def run(statement: Statement, arrays: Mapping[str, Array]) -> Array:
    """The statement on arrays, compiled for these shapes."""
    graph = _graph(statement)
    (result,) = evaluate(graph, [arrays[given.name] for given in graph.inputs])
    return result


def evaluate(graph: Graph, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """The outputs of a graph without parameters; what it compiles to is kept."""
    from striate.runtime import execute

    return execute(graph, [np.asarray(array, order="C") for array in arrays])


def _graph(statement: Statement) -> Graph:
    """The statement alone, all its operands given."""
    inputs = tuple([Input(name, shape) for name, shape in statement.shapes])
    node = Computed(statement, tuple([(given.name, given) for given in inputs]), "equation")
    return Graph(inputs, (node,))
