"""Fuse element-wise work into the equation before it: one kernel where there were several."""

from collections.abc import Callable

from striate.network.graph import Computed, Graph, Node, operands
from striate.transforms.rewrite import (
    count_uses,
    has_reduction,
    inline,
    reads_in_place,
    rebuild,
    with_operands,
)


def fuse(graph: Graph) -> Graph:
    """Put each producer that has one reader, and is read in place, into its reader's expression.

        t[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,p+u,q+v,i]) + B[j]
        y[b,p,q,j] = relu(t[b,p,q,j] + z[b,p,q,j])
    becomes
        y[b,p,q,j] = relu(sum[u,v,i](W[u,v,i,j] * x[b,p+u,q+v,i]) + B[j] + z[b,p,q,j])

    A kernel reduces once: of two producers that reduce, the one further from the inputs is taken
    in, so that the other does not wait for it.
    """
    uses = count_uses(graph)
    depth = _depths(graph)
    single = {id(node) for node in graph.nodes() if uses[id(node)] == 1}
    single -= {id(output) for output in graph.outputs}

    def change(node: Node, new: Callable[[Node], Node]) -> Node:
        drawn = with_operands(node, new)
        if not isinstance(drawn, Computed):
            return drawn
        return _absorb(drawn, {id(new(o)): depth[id(o)] for o in operands(node) if id(o) in single})

    return rebuild(graph, change)


def _absorb(node: Computed, candidates: dict[int, int]) -> Computed:
    """`node` with its absorbable operands inlined, the deepest first."""
    deepest = sorted(node.operands, key=lambda pair: -candidates.get(id(pair[1]), -1))
    for _, producer in deepest:
        if id(producer) not in candidates or not isinstance(producer, Computed):
            continue
        # Inlining may have renamed the operand: look its name up again.
        names = [name for name, operand in node.operands if operand is producer]
        if len(names) != 1 or not reads_in_place(node.statement, names[0], producer.shape):
            continue
        expressions = (node.statement.equation.expression, producer.statement.equation.expression)
        if all(has_reduction(expression) for expression in expressions):
            continue
        node = inline(node, names[0], producer) or node
    return node


def _depths(graph: Graph) -> dict[int, int]:
    """The most nodes that lie between an input and each node (by id)."""
    depth: dict[int, int] = {}
    for node in graph.nodes():
        depth[id(node)] = 1 + max((depth[id(operand)] for operand in operands(node)), default=0)
    return depth
