"""Read through flattening: a sum over flat features as a sum over rows, columns and features."""

from collections.abc import Callable, Mapping

from striate.network.graph import Computed, Graph, Node
from striate.notation.access import affine, may_be_outside
from striate.notation.ir import (
    Affine,
    Apply,
    Equation,
    Expression,
    Read,
    Reduce,
    Statement,
    reads,
    walk,
)
from striate.notation.substitute import compose, substitute
from striate.transforms.rewrite import fresh, rebuild, with_operands

Targets = Mapping[str, Affine]


def unflatten(graph: Graph) -> Graph:
    """Put each copy that joins axes into the sums that read it.

        t[b, P*Q*i+Q*p+q] = x[b,p,q,i]
        y[b,j] = sum[n](W[n,j] * t[b,n]) + B[j]
    becomes
        y[b,j] = sum[p,q,i](W[P*Q*i+Q*p+q, j] * x[b,p,q,i]) + B[j]
    so that a fully connected layer is seen to be a convolution as large as its image.
    """

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        for name, operand in drawn.operands:
            if isinstance(operand, Computed) and _joins_axes(operand.statement):
                drawn = _through(drawn, name, operand) or drawn
        return drawn

    return rebuild(graph, change)


def _joins_axes(statement: Statement) -> bool:
    """Whether the statement is a copy to fewer axes that reads nothing outside its operand."""
    source = statement.equation.expression
    if not isinstance(source, Read) or len(source.access) <= len(statement.shape):
        return False
    return not may_be_outside(
        source, dict(statement.shapes)[source.tensor], dict(statement.extents)
    )


def _through(node: Computed, tensor: str, copy: Computed) -> Computed | None:
    """`node` with its read of `tensor`, which is `copy`, replaced by the copy's own read."""
    statement, inner = node.statement, copy.statement
    expression = statement.equation.expression
    found = [read for read in reads(expression) if read.tensor == tensor]
    if len(found) != 1:
        return None
    sizes = dict(statement.extents)
    names = fresh([index for index, _ in inner.extents], set(sizes))
    sizes |= {names[index]: size for index, size in inner.extents}
    sources: dict[str, Affine] = {}
    pieces: dict[str, Affine] = {}
    for written, read in zip(inner.equation.output.access, found[0].access, strict=True):
        if written.index is not None:
            sources[written.index] = read
            continue
        if read.index is None or read.index in pieces:
            return None
        pieces[read.index] = affine((names[index], c) for index, c in written.terms)
        sources |= {index: affine([(names[index], 1)]) for index, _ in written.terms}
    source = inner.equation.expression
    assert isinstance(source, Read)
    access = tuple(compose(value, sources) for value in source.access)
    rewritten = _split(expression, pieces, Read(tensor, access), set(pieces))
    if rewritten is None:
        return None
    used = [i for a in statement.equation.output.access for i, _ in a.terms]
    used += [i for part in _reductions(rewritten) for i in part.indices]
    extents = tuple((index, sizes[index]) for index in dict.fromkeys(used))
    (operand,) = (operand for _, operand in copy.operands)
    named = tuple((n, operand if n == tensor else o) for n, o in node.operands)
    shapes = tuple((n, o.shape) for n, o in named)
    equation = Equation(statement.equation.output, rewritten, extents)
    return Computed(Statement(equation, shapes, extents, statement.shape), named, node.label)


def _split(node: Expression, pieces: Targets, source: Read, free: set[str]) -> Expression | None:
    """`node` with reductions over the indices of `pieces` as reductions over what they are made of.

    `source` stands where its tensor was read. None where an index is not reduced over.
    """
    match node:
        case Reduce(kind, indices, body):
            inner = _split(body, pieces, source, free - set(indices))
            if inner is None:
                return None
            kept = [index for index in indices if index not in pieces]
            finer = _finer([index for index in indices if index in pieces], pieces, source)
            return Reduce(kind, (*kept, *finer), inner)
        case Apply(function, arguments):
            parts = [_split(argument, pieces, source, free) for argument in arguments]
            if any(part is None for part in parts):
                return None
            return Apply(function, tuple(part for part in parts if part is not None))
        case Read(tensor, _) if tensor == source.tensor:
            return None if free else source
        case _:
            return substitute(node, {} if free else pieces)


def _finer(indices: list[str], pieces: Targets, source: Read) -> list[str]:
    """What `indices` are made of, in the order of the axes of `source`: features are the last."""
    parts = {name for index in indices for name, _ in pieces[index].terms}
    places = {name: axis for axis, value in enumerate(source.access) for name, _ in value.terms}
    return sorted(parts, key=lambda name: places.get(name, -1))


def _reductions(expression: Expression) -> list[Reduce]:
    return [part for part in walk(expression) if isinstance(part, Reduce)]
