"""Pooling before a pointwise convolution: the same values from fewer products."""

import numpy as np
import pytest
import reference

from striate.compiler import compile_graph
from striate.layers import avg_pool2d, conv2d, linear, max_pool2d, relu
from striate.network.graph import Computed, Graph, Input, Node
from striate.notation import multiply_adds
from striate.runtime import Executable
from striate.transforms.pool_first import pool_first

generator = np.random.default_rng(7)
X = Input("x", (2, 7, 8, 5))


def weight(*shape: int) -> np.ndarray:
    return generator.uniform(-1, 1, shape).astype(np.float32)


W, B, WIDE = weight(1, 1, 5, 9), weight(9), weight(3, 3, 5, 9)
POINTWISE = conv2d(X, W)

# The graph, and whether it has fewer products after.
CASES: dict[str, tuple[Node, bool]] = {
    "average": (avg_pool2d(POINTWISE, 2), True),
    "windows that overlap": (avg_pool2d(POINTWISE, 3, stride=2), True),
    "a border that counts": (avg_pool2d(POINTWISE, 3, stride=2, padding=1), True),
    "a border that does not": (
        avg_pool2d(POINTWISE, 3, stride=2, padding=1, count_include_pad=False),
        True,
    ),
    "a matrix product": (avg_pool2d(linear(X, weight(5, 9)), 2), True),
    "work before and after": (relu(avg_pool2d(conv2d(relu(X), W), 2)), True),
    "maximum": (max_pool2d(POINTWISE, 2), False),
    "a bias": (avg_pool2d(conv2d(X, W, B), 2, padding=1), False),
    "an activation between": (avg_pool2d(relu(POINTWISE), 2), False),
    "a window": (avg_pool2d(conv2d(X, WIDE), 2), False),
    "a stride": (avg_pool2d(conv2d(X, W, stride=2), 2), False),
    "as many pixels": (avg_pool2d(POINTWISE, 3, stride=1, padding=1), False),
}


def products(graph: Graph) -> int:
    nodes = [node for node in graph.nodes() if isinstance(node, Computed)]
    return sum(multiply_adds(node.statement) for node in nodes)


@pytest.mark.parametrize("case", CASES)
def test_values_stay_and_products_go(case: str) -> None:
    output, fewer = CASES[case]
    graph = Graph((X,), (output,))
    exchanged = pool_first(graph, reorder=True)
    assert (products(exchanged) < products(graph)) == fewer
    x = generator.uniform(-1, 1, X.shape).astype(np.float32)
    (expected,) = reference.evaluate(graph, x)
    (got,) = reference.evaluate(exchanged, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    for algorithm in ("direct", "exact"):
        (got,) = Executable(compile_graph(graph, algorithm=algorithm))(x)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_sums_keep_their_order_without_reordering() -> None:
    graph = Graph((X,), (avg_pool2d(POINTWISE, 2),))
    assert pool_first(graph, reorder=False) is graph


def test_what_others_read_stays() -> None:
    graph = Graph((X,), (avg_pool2d(POINTWISE, 2), POINTWISE))
    assert products(pool_first(graph, reorder=True)) == products(graph)
