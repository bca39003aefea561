"""Reading through copies of features: the same values, and no copy left where none is needed."""

import numpy as np
import pytest
import reference

from striate.compiler import compile_graph
from striate.layers import channel_shuffle, concatenate, conv2d, relu, take_features
from striate.network.graph import Computed, Graph, Input, Node
from striate.notation.ir import Read
from striate.runtime import Executable
from striate.transforms.read_through import read_through

generator = np.random.default_rng(5)
X = Input("x", (2, 5, 6, 12))


def weight(*shape: int) -> np.ndarray:
    return generator.uniform(-1, 1, shape).astype(np.float32)


W = weight(3, 3, 12, 7)
HALF = weight(1, 1, 6, 9)
SHUFFLED = channel_shuffle(X, 3)


def copies(graph: Graph) -> int:
    nodes = [node for node in graph.nodes() if isinstance(node, Computed)]
    return sum(isinstance(node.statement.equation.expression, Read) for node in nodes)


CASES: dict[str, tuple[Node, int]] = {
    "a slice into a convolution": (conv2d(take_features(X, 6, 12), HALF), 0),
    "a shuffle into a padded convolution": (conv2d(SHUFFLED, W, padding=1), 0),
    "a slice of a shuffle": (conv2d(take_features(channel_shuffle(X, 2), 6, 12), HALF), 0),
    "a slice that cuts a group": (conv2d(take_features(channel_shuffle(X, 4), 6, 12), HALF), 1),
    "a slice off the groups": (conv2d(take_features(channel_shuffle(X, 2), 3, 9), HALF), 1),
    "a slice of an odd size": (
        conv2d(take_features(channel_shuffle(X, 2), 0, 5), weight(1, 1, 5, 9)),
        1,
    ),
    "a copy of a copy": (take_features(channel_shuffle(X, 2), 0, 6), 1),
    "a shuffle of a shuffle": (conv2d(channel_shuffle(SHUFFLED, 2), W), 1),
    "depthwise needs the shuffle": (conv2d(SHUFFLED, weight(3, 3, 1, 12), groups=12), 1),
    "an element-wise reader": (relu(SHUFFLED), 1),
    "two readers": (
        concatenate([conv2d(SHUFFLED, W, padding=1), conv2d(SHUFFLED, W, padding=1)]),
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_stay_and_copies_go(case: str) -> None:
    output, left = CASES[case]
    graph = Graph((X,), (output,))
    assert copies(read_through(graph, reorder=True)) == left
    x = generator.uniform(-1, 1, X.shape).astype(np.float32)
    (expected,) = reference.evaluate(graph, x)
    for algorithm in ("direct", "exact"):
        (got,) = Executable(compile_graph(graph, algorithm=algorithm))(x)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_without_reordering_sums_keep_their_order() -> None:
    graph = Graph((X,), (conv2d(SHUFFLED, W),))
    assert copies(read_through(graph, reorder=False)) == 1
    sliced = Graph((X,), (conv2d(take_features(X, 6, 12), HALF),))
    assert copies(read_through(sliced, reorder=False)) == 0
