"""Nest a layer in the product or pooling that alone reads it: one equation where there were two."""

from collections.abc import Callable
from dataclasses import replace

from striate.network.graph import Computed, Graph, Node, operands
from striate.notation.count import multiply_adds
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Equation,
    Expression,
    Position,
    Read,
    Reduce,
    Shape,
    Statement,
    reads,
    walk,
)
from striate.transforms.rewrite import (
    count_uses,
    fresh,
    outside_reductions,
    rebuild,
    substitute,
    transform,
    with_operands,
)


def nest(graph: Graph, pays: Callable[[Computed], bool]) -> Graph:
    """Put producers that one product or pooling alone reads into its equation, where that `pays`.

        t[b,p,q,c] = relu(sum[u,v](D[u,v,c] * x[b,p+u,q+v,c]))
        y[b,p,q,j] = sum[c](W[c,j] * t[b,p,q,c])
    becomes
        y[b,p,q,j] = sum[c](W[c,j] * relu(sum[u,v](D[u,v,c] * x[b,p+u,q+v,c])))

    and the greatest of windows of outputs, `y[b,p,q,j] = max[u,v](t[b,2*p+u,2*q+v,j])`, becomes

        y[b,p,q,j] = max[u,v](relu(sum[r,s,i](W[r,s,i,j] * x[b,2*p+u+r,2*q+v+s,i])))

    No sum changes its order. `pays` is asked for the nested statement.
    """
    uses = count_uses(graph)

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        nested = _nested(drawn, {id(new(o)) for o in operands(node) if uses[id(o)] == 1})
        return nested if nested is not None and pays(nested) else drawn

    return rebuild(graph, change)


def _nested(node: Computed, single: set[int]) -> Computed | None:
    """`node` with the producer of the data that it reduces in the place of them."""
    named = dict(node.operands)
    for data in _reduced(node.statement.equation.expression):
        producer = named[data.tensor]
        if isinstance(producer, Computed) and id(producer) in single:
            reader = _without_single_places(node, data)
            for part in _reduced(producer.statement.equation.expression):
                producer = _without_single_places(producer, part)
            return _inlined(reader, data.tensor, producer)
    return None


def _reduced(expression: Expression) -> list[Read]:
    """What the one reduction in `expression` reads: two factors, or what it pools; else nothing."""
    found = {node for node in outside_reductions(expression) if isinstance(node, Reduce)}
    match list(found):
        case [Reduce("sum", _, Apply("multiply", (Read() as left, Read() as right)))]:
            return [right, left]
        case [Reduce(_, _, Read() as data)]:
            return [data]
        case _:
            return []


def _without_single_places(node: Computed, data: Read) -> Computed:
    """`node` without the reduction indices of one place by which `data` are read (1x1 windows)."""
    statement = node.statement
    extents = dict(statement.extents)
    reduced = {
        index
        for part in walk(statement.equation.expression)
        if isinstance(part, Reduce)
        for index in part.indices
    }
    gone = {
        index
        for affine in data.access
        if len(affine.terms) > 1
        for index, _ in affine.terms
        if index in reduced and extents[index] == 1
    }
    zero: dict[str, Affine] = {index: Affine(()) for index in gone}

    def change(part: Expression) -> Expression | None:
        match part:
            case Read(tensor, access):
                return Read(tensor, tuple(substitute(a, zero) for a in access))
            case Reduce(kind, indices, body):
                kept = tuple(index for index in indices if index not in gone)
                return Reduce(kind, kept, transform(body, change)) if gone else None
            case _:
                return None

    sizes = tuple((index, size) for index, size in statement.extents if index not in gone)
    expression = transform(statement.equation.expression, change)
    equation = replace(statement.equation, expression=expression, sizes=sizes)
    return replace(node, statement=replace(statement, equation=equation, extents=sizes))


def _inlined(node: Computed, tensor: str, producer: Computed) -> Computed | None:
    """`node` with `producer`'s expression for its one read of `tensor`.

    Where that read leaves the box of `tensor`, the expression is one that exists only within it.
    """
    outer, inner = node.statement, producer.statement
    found = [read for read in reads(outer.equation.expression) if read.tensor == tensor]
    sources = [affine.index for affine in inner.equation.output.access]
    if len(found) != 1 or None in sources or any(a.divisor > 1 for a in found[0].access):
        return None
    extents = dict(outer.extents)
    own = [index for index, _ in inner.extents if index not in sources]
    indices = fresh(own, set(extents))
    targets = {index: Affine(((new, 1),)) for index, new in indices.items()}
    targets |= {a: b for a, b in zip(sources, found[0].access, strict=True) if a}
    taken = {name for name, _ in node.operands} | {outer.equation.output.tensor}
    tensors = fresh([name for name, _ in producer.operands], taken - {tensor})
    data = _moved(inner.equation.expression, targets, tensors)
    if data is None:
        return None
    if not _within(found[0], extents, producer.shape):
        guard = _guard(data, found[0])
        if guard is None:
            return None
        data = Apply("where", (Constant(1.0), data, guard))
    expression = transform(
        outer.equation.expression, lambda part: data if part == found[0] else None
    )
    sizes = extents | {indices[index]: dict(inner.extents)[index] for index in own}
    operands = {tensors[name]: operand for name, operand in producer.operands}
    operands |= {name: operand for name, operand in node.operands if name != tensor}
    order = list(dict.fromkeys(read.tensor for read in reads(expression)))
    statement = Statement(
        Equation(outer.equation.output, expression, tuple(sizes.items())),
        tuple((name, operands[name].shape) for name in order),
        tuple(sizes.items()),
        outer.shape,
    )
    label = node.label if multiply_adds(outer) else producer.label
    return Computed(statement, tuple((name, operands[name]) for name in order), label)


def _moved(
    expression: Expression, targets: dict[str, Affine], tensors: dict[str, str]
) -> Expression | None:
    """`expression` at the places `targets`, or None where one of them is used as a number."""
    if any(isinstance(part, Position) for part in walk(expression)):
        return None

    def change(part: Expression) -> Expression | None:
        match part:
            case Read(tensor, access):
                return Read(tensors[tensor], tuple(substitute(a, targets) for a in access))
            case Reduce(kind, indices, body):
                renamed = tuple(targets[index].index or "" for index in indices)
                return Reduce(kind, renamed, transform(body, change))
            case _:
                return None

    return transform(expression, change)


def _within(read: Read, extents: dict[str, int], shape: Shape) -> bool:
    """Whether no place of the indices takes `read` out of its tensor's box."""
    for affine, size in zip(read.access, shape, strict=True):
        reach = [c * (extents[index] - 1) for index, c in affine.terms]
        low = affine.offset + sum(min(r, 0) for r in reach)
        high = affine.offset + sum(max(r, 0) for r in reach)
        if low < 0 or high >= size:
            return False
    return True


def _guard(data: Expression, read: Read) -> Read | None:
    """A read within `data` that exists where `read` does: of the same rows and columns."""
    for part in reads(data):
        if part.access[:-1] == read.access[:-1] and len(part.access) > 1:
            return Read(part.tensor, (*part.access[:-1], Affine(())))
    return None
