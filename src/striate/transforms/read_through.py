"""Read through copies: who reads a slice or a shuffle of features reads its source instead."""

from collections.abc import Callable, Mapping

from striate.network.graph import Computed, Graph, Node
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
from striate.transforms.rewrite import fresh, rebuild, substitute, transform, with_operands

Targets = dict[str, Affine]


def read_through(graph: Graph, *, reorder: bool) -> Graph:
    """Let convolutions, matrix products and copies read the sources of copies of features.

        t[b,p,q,2*i+g] = x[b,p,q,N*g+i]
        y[b,p,q,j] = sum[c](W[c,j] * t[b,p,q,c])
    becomes
        y[b,p,q,j] = sum[g,i](W[2*i+g,j] * x[b,p,q,N*g+i])

    which is the same sum in another order: it is left alone without `reorder`. A copy that nobody
    reads any more is gone; no data moves.
    """

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        for name, _ in drawn.operands:
            drawn = _through(drawn, name, reorder) or drawn
        return drawn

    return rebuild(graph, change)


def _through(node: Computed, tensor: str, reorder: bool) -> Computed | None:
    """`node` with its read of `tensor`, a copy, replaced by the read that makes the copy."""
    producer = dict(node.operands)[tensor]
    if not isinstance(producer, Computed):
        return None
    source = producer.statement.equation.expression
    expression = node.statement.equation.expression
    found = [read for read in reads(expression) if read.tensor == tensor]
    if not isinstance(source, Read) or len(found) != 1 or not _simple(expression):
        return None
    if not _of_features(producer.statement, source):
        return None
    split = _split(node.statement, found[0], producer.statement)
    if split is None:
        return None
    inner, outer = split
    if outer and not isinstance(expression, Read):
        # An output feature that is split no longer lies along the lanes: only sums may be.
        summed = {
            index for part in walk(expression) if isinstance(part, Reduce) for index in part.indices
        }
        if not reorder or not set(outer) <= summed:
            return None
    return _rewritten(node, found[0], producer, source, inner, outer)


def _simple(expression: Expression) -> bool:
    """A copy, or a sum of products, perhaps with something added: what the schedules take."""
    match expression:
        case Read():
            return True
        case Reduce("sum", _, Apply("multiply", (Read(), Read()))):
            return True
        case Apply("add", (Reduce() as reduction, Read())):
            return _simple(reduction)
        case _:
            return False


def _of_features(statement: Statement, source: Read) -> bool:
    """Whether the copy moves features only: all axes but the last are the same in both."""
    output = statement.equation.output
    shape = dict(statement.shapes)[source.tensor]
    if len(source.access) != len(output.access) or len(shape) < 2:
        return False
    for target, read in zip(output.access[:-1], source.access[:-1], strict=True):
        if target.index is None or target != read:
            return False
    if shape[:-1] != statement.shape[:-1]:
        return False
    return all(a.divisor == 1 and not a.exact for a in (output.access[-1], source.access[-1]))


def _split(
    statement: Statement, read: Read, copy: Statement
) -> tuple[Targets, Mapping[str, tuple[str, ...]]] | None:
    """What the copy's feature indices become, and by which indices the reader's is replaced.

    The reader's last access is `c + offset`. Where the copy writes feature n at place n, n becomes
    that; where it writes at r*n + m, c becomes r*n + m too, if r divides c's size and the offset.
    """
    target = copy.equation.output.access[-1]
    last = read.access[-1]
    if last.divisor != 1 or len(last.terms) != 1 or last.terms[0][1] != 1 or last.offset < 0:
        return None
    index, offset = last.terms[0][0], last.offset
    size = dict(statement.extents)[index]
    if offset + size > copy.shape[-1]:
        return None
    if target.index is not None:
        return {target.index: last}, {}
    if target.offset or len(target.terms) < 2:
        return None
    ordered = sorted(target.terms, key=lambda term: -term[1])
    radix = ordered[0][1]
    others = [a for a in read.access[:-1] if a.coefficient(index)]
    if offset % radix or size % radix or others:
        return None
    names = fresh([name for name, _ in ordered], {name for name, _ in statement.extents})
    inner: Targets = {name: Affine(((names[name], 1),)) for name, _ in ordered}
    inner[ordered[0][0]] = Affine(((names[ordered[0][0]], 1),), offset // radix)
    # The finest steps outermost: the coarse one is what lies side by side in the source.
    return inner, {index: tuple(names[name] for name, _ in reversed(ordered))}


def _rewritten(
    node: Computed,
    read: Read,
    producer: Computed,
    source: Read,
    inner: Targets,
    outer: Mapping[str, tuple[str, ...]],
) -> Computed:
    statement, copy = node.statement, producer.statement
    steps = {inner[name].terms[0][0]: c for name, c in copy.equation.output.access[-1].terms}
    sizes = dict(statement.extents)
    pieces: Targets = {}
    for index, names in outer.items():
        pieces[index] = Affine(tuple((name, steps[name]) for name in reversed(names)))
        radix = max(steps[name] for name in names)
        old = {inner[n].terms[0][0]: dict(copy.extents)[n] for n in inner}
        whole = sizes.pop(index) // radix
        sizes |= {name: whole if steps[name] == radix else old[name] for name in names}
    axes = zip(copy.equation.output.access[:-1], read.access[:-1], strict=True)
    inner = inner | {a.index: substitute(e, pieces) for a, e in axes if a.index is not None}

    def change(part: Expression) -> Expression | None:
        match part:
            case Read(name, access) if name == read.tensor:
                return Read(name, tuple(substitute(a, inner) for a in source.access))
            case Read(name, access):
                return Read(name, tuple(substitute(a, pieces) for a in access))
            case Reduce(kind, indices, body):
                split = [new for index in indices for new in outer.get(index, (index,))]
                return Reduce(kind, tuple(split), transform(body, change))
            case _:
                return None

    expression = transform(statement.equation.expression, change)
    output = statement.equation.output
    output = Read(output.tensor, tuple(substitute(a, pieces) for a in output.access))
    order = [i for a in output.access for i, _ in a.terms]
    extents = tuple((i, sizes[i]) for i in dict.fromkeys([*order, *sizes]))
    (operand,) = [o for _, o in producer.operands]
    named = tuple((n, operand if n == read.tensor else o) for n, o in node.operands)
    shapes = tuple((name, o.shape) for name, o in named)
    equation = Equation(output, expression, extents)
    return Computed(Statement(equation, shapes, extents, statement.shape), named, node.label)
