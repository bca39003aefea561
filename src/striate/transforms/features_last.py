"""Put features last: contractions in other orders of axes as what the fast schedules take."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from striate.network.graph import Computed, Derived, Graph, Known, Node
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
from striate.transforms.rewrite import (
    copy_of,
    copying,
    fresh,
    has_reduction,
    rebuild,
    transform,
    with_operands,
)

# Moving an element takes about as long as this many products: fewer don't pay for it.
PRODUCTS = 8

Order = tuple[int, ...]


def features_last(graph: Graph) -> Graph:
    """Move the features of contractions to the last axis, by copies around them.

        y[b,j,p,q] = relu(sum[u,v,i](W[j,i,u,v] * x[b,i,p+u,q+v]) + B[j])
    becomes, with W2 made before the run if the weights are known,
        x2[b,p,q,i] = x[b,i,p,q]
        t[b,p,q,j] = sum[u,v,i](W2[u,v,i,j] * x2[b,p+u,q+v,i])
        y[b,j,p,q] = relu(t[b,p,q,j] + B[j])
    Where the products are too few to pay for the copies, the statement stays as it is; where all
    stay, so does the graph. Between two contractions only element-wise work is moved, uncopied, to
    where the second reads: a fused graph is best.
    """
    made: dict[tuple[int, Order], Node] = {}

    def permuted(node: Node, order: Order) -> Node:
        return made.setdefault((id(node), order), _permuted(node, order))

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        rewritten = _rewritten(drawn, permuted)
        changes.append(rewritten is not drawn)
        return rewritten

    changes: list[bool] = []
    rewritten = rebuild(graph, change)
    return rewritten if any(changes) else graph


@dataclass(frozen=True, slots=True)
class _Roles:
    """Who is who in a contraction: the weights run along the output's axis `features` alone."""

    weight: Read
    data: Read
    features: int


def _roles(statement: Statement) -> _Roles | None:
    """The roles, those that leave the output's features where they are if there are two ways."""
    reductions = {n for n in walk(statement.equation.expression) if isinstance(n, Reduce)}
    if len(reductions) != 1:
        return None
    match reductions.pop():
        case Reduce("sum", indices, Apply("multiply", (Read() as left, Read() as right))):
            pass
        case _:
            return None
    output = statement.equation.output.access
    found = []
    for weight, data in ((left, right), (right, left)):
        shared = _indices(weight.access)
        axes = [k for k, affine in enumerate(output) if shared & _indices([affine])]
        if len(axes) != 1 or not set(indices) <= shared or weight.tensor == data.tensor:
            continue
        features = output[axes[0]]
        alone = _indices([features]) - _indices(data.access)
        if alone and weight.access.count(features) == 1:
            found.append(_Roles(weight, data, axes[0]))
    return max(found, key=lambda roles: roles.features, default=None)


def _rewritten(node: Computed, permuted: Callable[[Node, Order], Node]) -> Node:
    """The contraction between its copies; anything else as it is."""
    roles = _roles(node.statement)
    if roles is None:
        return node
    output = node.statement.equation.output.access
    orders: dict[Read, Order] = {}
    data = _data_order(node.statement, roles)
    if data is not None:
        orders[roles.data] = data
    moves = roles.features != len(output) - 1
    shapes = dict(node.statement.shapes)
    moved = math.prod(node.statement.shape) if moves else 0
    moved += math.prod(shapes[roles.data.tensor]) if data else 0
    if math.prod(size for _, size in node.statement.extents) < PRODUCTS * moved:
        return node
    if isinstance(dict(node.operands)[roles.weight.tensor], Known):
        orders[roles.weight] = _weight_order(roles, output[roles.features], data)
    for read, order in orders.items():
        if order != tuple(sorted(order)):
            node = _reordered(node, read, order, permuted)
    return _split(node, roles.features) if moves else node


def _data_order(statement: Statement, roles: _Roles) -> Order | None:
    """The data's axes with the channels last, where a row of pixels is."""
    access = roles.data.access
    outer = statement.equation.output.access
    rows = _indices(affine for k, affine in enumerate(outer) if k != roles.features)
    # A matrix is as well read across as along.
    if len(access) < 3 or not rows & _indices(access[-1:]):
        return None
    extents = dict(statement.extents)
    sizes = {
        axis: math.prod(extents[index] for index in _indices([affine]))
        for axis, affine in enumerate(access)
        if affine.terms and not rows & _indices([affine])
    }
    if not sizes:
        return None
    channels = max(sizes, key=lambda axis: (sizes[axis], axis))
    return (*[axis for axis in range(len(access)) if axis != channels], channels)


def _weight_order(roles: _Roles, features: Affine, data: Order | None) -> Order:
    """The weights' axes in the order of the data's that they meet, the features last."""
    access = roles.data.access if data is None else [roles.data.access[axis] for axis in data]

    def rank(axis: int) -> tuple[bool, int]:
        affine = roles.weight.access[axis]
        met = [k for k, other in enumerate(access) if _indices([affine]) & _indices([other])]
        return affine == features, min(met, default=len(access))

    return tuple(sorted(range(len(roles.weight.access)), key=rank))


def _reordered(
    node: Computed, read: Read, order: Order, permuted: Callable[[Node, Order], Node]
) -> Computed:
    """`node` with `read` made from a permutation of its operand."""
    named = dict(node.operands)
    expression = node.statement.equation.expression
    operand = permuted(named[read.tensor], order)
    if any(other.tensor == read.tensor and other != read for other in reads(expression)):
        taken = {*named, node.statement.equation.output.tensor}
        name = fresh([read.tensor], taken)[read.tensor]
    else:
        name = read.tensor
    successor = Read(name, tuple(read.access[axis] for axis in order))
    expression = transform(expression, lambda part: successor if part == read else None)
    output = node.statement.equation.output
    return _computed(node, output, expression, {**named, name: operand})


def _split(node: Computed, features: int) -> Computed:
    """The reduction with its features last, and the rest of the expression that reads it."""
    statement = node.statement
    output = statement.equation.output
    expression = statement.equation.expression
    (reduction,) = {part for part in walk(expression) if isinstance(part, Reduce)}
    rows = [affine for axis, affine in enumerate(output.access) if axis != features]
    named = dict(node.operands)
    name = fresh(["t"], {*named, output.tensor})["t"]
    total = Read(name, (*rows, output.access[features]))
    inner = _computed(node, total, reduction, named)
    outer = transform(expression, lambda part: total if part == reduction else None)
    return _computed(node, output, outer, {**named, name: inner})


def _computed(
    node: Computed, output: Read, expression: Expression, named: Mapping[str, Node]
) -> Computed:
    """`output = expression`, with the sizes of `node`."""
    statement = node.statement
    sizes = dict(statement.extents)
    axes = statement.equation.output.access
    shape = tuple(statement.shape[axes.index(affine)] for affine in output.access)
    indices = [index for affine in output.access for index, _ in affine.terms]
    for part in walk(expression):
        if isinstance(part, Reduce):
            indices += part.indices
    extents = tuple((index, sizes[index]) for index in dict.fromkeys(indices))
    order = dict.fromkeys(read.tensor for read in reads(expression))
    shapes = tuple((tensor, named[tensor].shape) for tensor in order)
    equation = Equation(output, expression, extents)
    operands = tuple((tensor, named[tensor]) for tensor in order)
    return Computed(Statement(equation, shapes, extents, shape), operands, node.label)


def _permuted(node: Node, order: Order) -> Node:
    """`node` with its axes in another order: the same work written elsewhere, or a copy."""
    if isinstance(node, Computed) and not has_reduction(node.statement.equation.expression):
        equation = node.statement.equation
        access = tuple(equation.output.access[axis] for axis in order)
        output = replace(equation.output, access=access)
        return _computed(node, output, equation.expression, dict(node.operands))
    if isinstance(node, Known):
        return Derived(node.name, copying(node.shape, order), (("x", node),))
    return copy_of(node, order)


def _indices(access: Iterable[Affine]) -> set[str]:
    return {index for affine in access for index, _ in affine.terms}
