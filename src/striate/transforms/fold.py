"""Fold what is known before the run: affine maps of features (batch norm) into weights."""

from collections.abc import Callable
from dataclasses import replace

from striate.network.graph import Computed, Derived, Graph, Known, Node, operands
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Expression,
    Read,
    Reduce,
    Statement,
    reads,
)
from striate.transforms.rewrite import (
    count_uses,
    derived,
    has_reduction,
    reads_in_place,
    rebuild,
    transform,
    with_operands,
)


def fold(graph: Graph) -> Graph:
    """Turn affine maps with known coefficients into `x * scale + shift`, and fold them.

        y[..., j] = (sum(W[..., j] * x) + B[j] - m[j]) / sqrt(v[j] + eps) * g[j] + h[j]
    becomes, with scale and shift computed once, before the run, in float64,
        y[..., j] = sum((W * scale)[..., j] * x) + (B * scale + shift)[j]
    if the sum has no other reader.
    """
    uses = count_uses(graph)
    single = {id(node) for node in graph.nodes() if uses[id(node)] == 1}
    single -= {id(output) for output in graph.outputs}

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        found = _affine_map(drawn)
        if found is None:
            return drawn
        tensor, scale, shift = found
        producer = dict(drawn.operands)[tensor]
        alone = {id(new(operand)) for operand in operands(node) if id(operand) in single}
        if isinstance(producer, Computed) and id(producer) in alone:
            folded = _into_contraction(producer, scale, shift)
            if folded is not None:
                return folded
        return _scale_and_shift(drawn, tensor, scale, shift)

    return rebuild(graph, change)


def _affine_map(node: Computed) -> tuple[str, Derived, Derived] | None:
    """(operand, scale, shift) if the node is `operand * scale[i] + shift[i]`, with both known."""
    statement = node.statement
    expression = statement.equation.expression
    unknown = [name for name, operand in node.operands if not isinstance(operand, Known)]
    if has_reduction(expression) or len(unknown) != 1 or len(node.operands) == 1:
        return None
    tensor = unknown[0]
    last = statement.equation.output.access[-1]
    others = [read for read in reads(expression) if read.tensor != tensor]
    if not reads_in_place(statement, tensor, dict(statement.shapes)[tensor]):
        return None
    if any(read.access != (last,) for read in others) or _degree(expression, tensor) != 1:
        return None
    at_zero, at_one = (_at(expression, tensor, value) for value in (0.0, 1.0))
    scale = _vector(node, "scale", Apply("subtract", (at_one, at_zero)))
    return tensor, scale, _vector(node, "shift", at_zero)


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


def _at(expression: Expression, tensor: str, value: float) -> Expression:
    """The expression where `tensor` is `value`."""

    def change(part: Expression) -> Expression | None:
        return Constant(value) if isinstance(part, Read) and part.tensor == tensor else None

    return transform(expression, change)


def _vector(node: Computed, name: str, expression: Expression) -> Derived:
    """`expression`, of which there is one value for each of the node's features."""
    statement = node.statement
    last = statement.equation.output.access[-1]
    extents = tuple((i, n) for i, n in statement.extents if last.coefficient(i))
    output = Read("value", (last,))
    title = f"{node.label} {name}"
    return derived(title, output, expression, node.operands, extents, statement.shape[-1:])


def _into_contraction(node: Computed, scale: Derived, shift: Derived) -> Computed | None:
    """`node * scale + shift` where node is `sum(W * x)` or `sum(W * x) + B` with known W and B."""
    statement = node.statement
    last = statement.equation.output.access[-1]
    named = dict(node.operands)
    found = _sum_and_bias(statement.equation.expression)
    if found is None:
        return None
    reduction, left, right, bias = found
    if bias is not None and not (bias.access == (last,) and isinstance(named[bias.tensor], Known)):
        return None
    tensors = [read.tensor for read in reads(statement.equation.expression)]
    for read in (left, right):
        weight = named[read.tensor]
        if not isinstance(weight, Known) or tensors.count(read.tensor) > 1:
            continue
        if read.access[-1] == last and weight.shape[-1:] == scale.shape:
            break
    else:
        return None
    named[read.tensor] = _scaled(weight, scale)
    name = _bias_name(statement, bias)
    named[name] = shift if bias is None else _shifted(named[bias.tensor], scale, shift)
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


def _scaled(weight: Known, scale: Derived) -> Derived:
    """`weight[..., j] * scale[j]`."""
    names = [f"n{axis}" for axis in range(len(weight.shape))]
    access = tuple(Affine(((name, 1),)) for name in names)
    product = Apply("multiply", (Read("W", access), Read("scale", access[-1:])))
    extents = tuple(zip(names, weight.shape, strict=True))
    named = (("W", weight), ("scale", scale))
    return derived(weight.name, Read("value", access), product, named, extents, weight.shape)


def _shifted(bias: Node, scale: Derived, shift: Derived) -> Derived:
    """`bias[j] * scale[j] + shift[j]`."""
    assert isinstance(bias, Known)
    access = (Affine((("j", 1),)),)
    product = Apply("multiply", (Read("B", access), Read("scale", access)))
    total = Apply("add", (product, Read("shift", access)))
    named = (("B", bias), ("scale", scale), ("shift", shift))
    extents = (("j", bias.shape[0]),)
    return derived(bias.name, Read("value", access), total, named, extents, bias.shape)


def _scale_and_shift(node: Computed, tensor: str, scale: Derived, shift: Derived) -> Computed:
    statement = node.statement
    output = statement.equation.output
    last: tuple[Affine, ...] = (output.access[-1],)
    data = Read(tensor, output.access)
    product = Apply("multiply", (data, Read("scale", last)))
    expression = Apply("add", (product, Read("shift", last)))
    named: dict[str, Node] = {
        tensor: dict(node.operands)[tensor],
        "scale": scale,
        "shift": shift,
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
