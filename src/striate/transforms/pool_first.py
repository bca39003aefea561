"""Pool before a pointwise convolution instead of after it: as many products fewer as pixels."""

import math
from collections.abc import Callable
from dataclasses import replace

from striate.network.graph import Computed, Graph, Node, operands
from striate.notation.ir import Affine, Apply, Constant, Expression, Read, Reduce, Statement, walk
from striate.transforms.rewrite import count_uses, rebuild, with_operands


def pool_first(graph: Graph, *, reorder: bool) -> Graph:
    """Exchange a pointwise convolution and the average pooling that alone reads it.

        t[b,p,q,j] = sum[i](W[i,j] * x[b,p,q,i])
        y[b,p,q,j] = sum[u,v](t[b,2*p+u,2*q+v,j]) / 4
    becomes
        m[b,p,q,i] = sum[u,v](x[b,2*p+u,2*q+v,i]) / 4
        y[b,p,q,j] = sum[i](W[i,j] * m[b,p,q,i])

    which is the same sum in another order: nothing is done without `reorder`, nor where the
    pooling leaves as many pixels as there were.
    """
    if not reorder:
        return graph
    uses = count_uses(graph)

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        single = {id(new(operand)) for operand in operands(node) if uses[id(operand)] == 1}
        return _exchanged(drawn, single) or drawn

    return rebuild(graph, change)


def _exchanged(pooling: Computed, single: set[int]) -> Computed | None:
    """The convolution of what `pooling` makes of its data, if `pooling` pools a convolution."""
    window = _window(pooling.statement)
    if window is None:
        return None
    convolution = dict(pooling.operands)[window.tensor]
    if not isinstance(convolution, Computed) or id(convolution) not in single:
        return None
    data = _pointwise_data(convolution.statement)
    if data is None or math.prod(pooling.shape[:-1]) >= math.prod(convolution.shape[:-1]):
        return None
    source = dict(convolution.operands)[data.tensor]
    feature = pooling.statement.equation.output.access[-1].index
    assert feature is not None
    pooled = replace(
        pooling,
        statement=_resized(
            pooling.statement,
            window.tensor,
            source.shape,
            {feature: source.shape[-1]},
            (*pooling.shape[:-1], source.shape[-1]),
        ),
        operands=tuple((n, source if n == window.tensor else o) for n, o in pooling.operands),
    )
    rows = [affine.index for affine in convolution.statement.equation.output.access[:-1]]
    sizes = {row: size for row, size in zip(rows, pooling.shape, strict=False) if row}
    statement = _resized(convolution.statement, data.tensor, pooled.shape, sizes, pooling.shape)
    named = tuple((n, pooled if n == data.tensor else o) for n, o in convolution.operands)
    return replace(convolution, statement=statement, operands=named)


def _window(statement: Statement) -> Read | None:
    """The read of a sum (or mean) over windows that is at most scaled, alike for all features."""
    expression = statement.equation.expression
    output = statement.equation.output.access
    reductions = [node for node in walk(expression) if isinstance(node, Reduce)]
    if len(reductions) != 1 or reductions[0].kind not in ("sum", "mean") or not output:
        return None
    read, feature = reductions[0].body, output[-1].index
    if not isinstance(read, Read) or feature is None or any(a.index is None for a in output):
        return None
    if not read.access or read.access[-1] != output[-1]:
        return None
    if any(affine.coefficient(feature) for affine in read.access[:-1]):
        return None
    return read if _scales(expression, reductions[0], feature) else None


def _scales(expression: Expression, reduction: Reduce, feature: str) -> bool:
    """Whether `expression` is `reduction` times or divided by what no feature changes."""
    match expression:
        case Reduce():
            return expression is reduction
        case Apply("multiply" | "divide", (left, right)):
            factor = isinstance(right, Constant) or (
                isinstance(right, Read) and not any(a.coefficient(feature) for a in right.access)
            )
            return factor and _scales(left, reduction, feature)
        case _:
            return False


def _pointwise_data(statement: Statement) -> Read | None:
    """The data of a sum of products that reads one pixel for each pixel, and adds nothing to it."""
    match statement.equation.expression:
        case Reduce("sum", _, Apply("multiply", (Read() as left, Read() as right))):
            pass
        case _:
            return None
    output = statement.equation.output.access
    rows = [affine.index for affine in output[:-1]]
    if any(affine.index is None for affine in output):
        return None
    extents, shapes = dict(statement.extents), dict(statement.shapes)
    feature = output[-1].index or ""

    def pixel(affine: Affine) -> Affine:
        """The access without indices that have one place only."""
        return replace(affine, terms=tuple(t for t in affine.terms if extents[t[0]] > 1))

    for weight, data in ((left, right), (right, left)):
        shared = [*weight.access, *data.access[-1:]]
        if any(affine.coefficient(row) for affine in shared for row in rows if row):
            continue
        if any(affine.coefficient(feature) for affine in data.access):
            continue
        pixels = [pixel(affine) for affine in data.access[:-1]]
        same = shapes[data.tensor][:-1] == statement.shape[:-1]
        if same and pixels == [pixel(affine) for affine in output[:-1]]:
            return data
    return None


def _resized(
    statement: Statement,
    tensor: str,
    shape: tuple[int, ...],
    sizes: dict[str, int],
    output: tuple[int, ...],
) -> Statement:
    """`statement` with other sizes: of the operand `tensor`, of some indices and of the output."""
    extents = tuple((index, sizes.get(index, size)) for index, size in statement.extents)
    shapes = tuple((name, shape if name == tensor else old) for name, old in statement.shapes)
    equation = replace(statement.equation, sizes=extents)
    return Statement(equation, shapes, extents, output)
