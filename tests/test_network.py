"""Graphs of equations: the order of their nodes, and how they print."""

import numpy as np

from striate.network.graph import Computed, Concatenated, Graph, Input, Node, Parameter
from striate.notation import parse, resolve


def add(left: Node, right: Node, label: str) -> Computed:
    """left + right, for two nodes of one shape [b, i]."""
    shapes = {"l": left.shape, "r": right.shape}
    statement = resolve(parse("y[b,i] = l[b,i] + r[b,i]"), shapes)
    return Computed(statement, (("l", left), ("r", right)), label)


def doubled(depth: int) -> Graph:
    """A sum of a node with itself, `depth` times over: 2 ** depth paths to the input."""
    given = Input("x", (1, 2))
    node: Node = given
    for level in range(depth):
        node = add(node, node, f"level{level}")
    return Graph((given,), (node,))


def test_nodes_print_what_they_are_and_not_what_they_hang_on() -> None:
    given = Input("x", (1, 2))
    weight = Parameter("fc.weight", np.zeros((1, 2), np.float32))
    total = add(given, weight, "fc")
    assert repr(given) == "Input('x', (1, 2))"
    assert repr(weight) == "Parameter('fc.weight', (1, 2))"
    assert repr(total) == "Computed('fc', (1, 2))"
    assert repr(Concatenated((total, given), 1, "cat")) == "Concatenated('cat', (1, 4))"


def test_a_graph_of_shared_nodes_prints_on_a_line() -> None:
    assert repr(doubled(200)) == (
        "Graph(inputs=(Input('x', (1, 2)),), outputs=(Computed('level199', (1, 2)),))"
    )


def test_nodes_come_once_and_after_their_operands() -> None:
    graph = doubled(200)
    labels = [node.label for node in graph.nodes() if isinstance(node, Computed)]
    assert graph.nodes()[0] is graph.inputs[0]
    assert labels == [f"level{level}" for level in range(200)]
