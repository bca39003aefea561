"""Rewriting expressions: rename what they mention, put one in the place of a read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from striate.network.graph import (
    Computed,
    Concatenated,
    Derived,
    Graph,
    Known,
    Node,
    operands,
)
from striate.notation.ir import (
    Affine,
    Apply,
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


def transform(
    expression: Expression, change: Callable[[Expression], Expression | None]
) -> Expression:
    """`expression` with every node that `change` gives a successor for replaced, parents first."""
    successor = change(expression)
    if successor is not None:
        return successor
    match expression:
        case Apply(function, arguments):
            return Apply(function, tuple(transform(a, change) for a in arguments))
        case Reduce(kind, indices, body):
            return Reduce(kind, indices, transform(body, change))
        case _:
            return expression


def rename(
    expression: Expression, indices: Mapping[str, str], tensors: Mapping[str, str]
) -> Expression:
    """`expression` under other names."""

    def affine(a: Affine) -> Affine:
        return replace(a, terms=tuple((indices.get(i, i), c) for i, c in a.terms))

    def change(node: Expression) -> Expression | None:
        match node:
            case Read(tensor, access):
                return Read(tensors.get(tensor, tensor), tuple(affine(a) for a in access))
            case Position(index):
                return Position(indices.get(index, index))
            case Reduce(kind, names, body):
                renamed = tuple(indices.get(i, i) for i in names)
                return Reduce(kind, renamed, rename(body, indices, tensors))
            case _:
                return None

    return transform(expression, change)


def outside_reductions(expression: Expression) -> list[Expression]:
    """The nodes of `expression` that stand in no reduction (the reductions themselves included)."""
    match expression:
        case Apply(_, arguments):
            inner = [node for argument in arguments for node in outside_reductions(argument)]
            return [expression, *inner]
        case _:
            return [expression]


def has_reduction(expression: Expression) -> bool:
    """Whether `expression` reduces over any index."""
    return any(isinstance(node, Reduce) for node in walk(expression))


def reads_in_place(statement: Statement, tensor: str, shape: Shape) -> bool:
    """Whether every read of `tensor` is outside reductions and at exactly the output's element."""
    output = statement.equation.output
    if shape != statement.shape or any(a.index is None for a in output.access):
        return False
    expression = statement.equation.expression
    found = [read for read in reads(expression) if read.tensor == tensor]
    free = [node for node in outside_reductions(expression) if isinstance(node, Read)]
    return all(read.access == output.access for read in found) and len(
        [read for read in free if read.tensor == tensor]
    ) == len(found)


def inline(consumer: Computed, tensor: str, producer: Computed) -> Computed | None:
    """`consumer` with `producer`'s expression in place of its reads of `tensor`, or None.

    The reads must be in place (`reads_in_place`). The producer takes on the consumer's index names;
    where its output access is affine (groups), the consumer takes on the producer's, if it can.
    """
    plain = all(a.index is not None for a in producer.statement.equation.output.access)
    if plain:
        consumer, producer = consumer, _under_names_of(consumer, producer)
    else:
        nodes = list(walk(consumer.statement.equation.expression))
        if any(isinstance(node, Reduce | Position) for node in nodes):
            return None
    inner, outer = producer.statement, consumer.statement
    output = outer.equation.output if plain else inner.equation.output
    targets = {
        a.index: b
        for a, b in zip(outer.equation.output.access, output.access, strict=True)
        if a.index
    }
    tensors = fresh([n for n, _ in consumer.operands], {n for n, _ in producer.operands})

    def change(node: Expression) -> Expression | None:
        if not isinstance(node, Read):
            return None
        if node.tensor == tensor:
            return inner.equation.expression
        access = node.access if plain else tuple(substitute(a, targets) for a in node.access)
        return Read(tensors[node.tensor], access)

    expression = transform(outer.equation.expression, change)
    kept = [(tensors[n], operand) for n, operand in consumer.operands if n != tensor]
    named = dict([*producer.operands, *kept])
    order = list(dict.fromkeys(read.tensor for read in reads(expression)))
    extents = dict([*outer.extents, *inner.extents]) if plain else dict(inner.extents)
    name = outer.equation.output.tensor
    equation = Equation(
        Read(fresh([name], set(order))[name], output.access), expression, tuple(extents.items())
    )
    shapes = tuple((name, named[name].shape) for name in order)
    statement = Statement(equation, shapes, tuple(extents.items()), outer.shape)
    label = producer.label if has_reduction(inner.equation.expression) else consumer.label
    return Computed(statement, tuple((n, named[n]) for n in order), label or consumer.label)


def _under_names_of(consumer: Computed, producer: Computed) -> Computed:
    """`producer` with its output indices named as the consumer's, its reductions by free names."""
    inner, outer = producer.statement, consumer.statement
    axes = zip(inner.equation.output.access, outer.equation.output.access, strict=True)
    outputs = {a.index: b.index for a, b in axes if a.index and b.index}
    rest = [index for index, _ in inner.extents if index not in outputs]
    taken = {index for index, _ in outer.extents}
    indices = {**fresh(rest, taken), **outputs}
    equation = Equation(
        Read(inner.equation.output.tensor, outer.equation.output.access),
        rename(inner.equation.expression, indices, {}),
    )
    extents = tuple((indices[index], size) for index, size in inner.extents)
    return replace(producer, statement=replace(inner, equation=equation, extents=extents))


def substitute(affine: Affine, targets: Mapping[str, Affine]) -> Affine:
    """`affine` with each index replaced by what it became; plain accesses take anything."""
    if affine.index is not None and affine.index in targets:
        return targets[affine.index]
    terms: dict[str, int] = {}
    offset = affine.offset
    for index, coefficient in affine.terms:
        target = targets.get(index, Affine(((index, 1),)))
        offset += coefficient * target.offset
        for name, inner in target.terms:
            terms[name] = terms.get(name, 0) + coefficient * inner
    return replace(affine, terms=tuple(terms.items()), offset=offset)


def fresh(names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """New names for those of `names` that are taken already."""
    used = set(taken)
    result: dict[str, str] = {}
    for name in names:
        new, count = name, 1
        while new in used:
            count += 1
            new = f"{name}{count}"
        used.add(new)
        result[name] = new
    return result


def count_uses(graph: Graph) -> dict[int, int]:
    """How often each node (by id) is read; an output of the graph counts as one use."""
    uses: dict[int, int] = {id(node): 0 for node in graph.nodes()}
    for node in graph.nodes():
        for operand in operands(node):
            uses[id(operand)] += 1
    for output in graph.outputs:
        uses[id(output)] += 1
    return uses


def rebuild(graph: Graph, change: Callable[[Node, Callable[[Node], Node]], Node]) -> Graph:
    """A new graph in which every node is what `change(node, new)` makes of it.

    `new` gives the successor of an operand, which has been made already.
    """
    made: dict[int, Node] = {}

    def new(node: Node) -> Node:
        return made[id(node)]

    for node in graph.nodes():
        made[id(node)] = change(node, new)
    return Graph(graph.inputs, tuple(new(output) for output in graph.outputs))


def with_operands(node: Node, new: Callable[[Node], Node]) -> Node:
    """`node` on the successors of its operands."""
    match node:
        case Computed(_, named, _):
            return replace(node, operands=tuple((name, new(operand)) for name, operand in named))
        case Concatenated(parts, _, _):
            return replace(node, parts=tuple(new(part) for part in parts))
        case _:
            return node


def copying(shape: Shape, order: Sequence[int] | None = None) -> Statement:
    """`y[...] = x[...]` of an `x` of `shape`; `order` says which axis of it each of `y`'s is."""
    order = range(len(shape)) if order is None else order
    access = [Affine(((f"n{axis}", 1),)) for axis in range(len(shape))]
    output = Read("y", tuple(access[axis] for axis in order))
    extents = tuple((f"n{axis}", shape[axis]) for axis in order)
    equation = Equation(output, Read("x", tuple(access)), extents)
    return Statement(equation, (("x", shape),), extents, tuple(shape[axis] for axis in order))


def copy_of(node: Node, order: Sequence[int] | None = None) -> Computed:
    """A copy of `node`, its axes in another order if one is given."""
    return Computed(copying(node.shape, order), (("x", node),), getattr(node, "label", ""))


def derived(
    name: str,
    output: Read,
    expression: Expression,
    operands: Iterable[tuple[str, Node]],
    extents: tuple[tuple[str, int], ...],
    shape: Shape,
) -> Derived:
    """`output = expression`, which reads nothing but known ones of `operands`."""
    order = list(dict.fromkeys(read.tensor for read in reads(expression)))
    named = {tensor: node for tensor, node in operands if isinstance(node, Known)}
    shapes = tuple((tensor, named[tensor].shape) for tensor in order)
    statement = Statement(Equation(output, expression, extents), shapes, extents, shape)
    return Derived(name, statement, tuple((tensor, named[tensor]) for tensor in order))
