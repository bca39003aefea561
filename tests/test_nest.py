"""Layers nested in the product that reads them: the same bits, in fewer kernels."""

import numpy as np
import pytest
import reference

from striate.compiler import compile_graph
from striate.layers import add, batch_norm, concatenate, conv2d, linear, relu, relu6
from striate.network.graph import Computed, Graph, Input, Node
from striate.notation import multiply_adds
from striate.runtime import Executable
from striate.transforms.fold import fold
from striate.transforms.fuse import fuse
from striate.transforms.nest import nest

generator = np.random.default_rng(11)
X = Input("x", (2, 33, 34, 12))


def weight(*shape: int) -> np.ndarray:
    return generator.uniform(-1, 1, shape).astype(np.float32)


D, B, W, A = weight(3, 3, 1, 12), weight(12), weight(1, 1, 12, 9), weight(9)
DEPTHWISE = relu6(conv2d(X, D, B, padding=1, groups=12))
NORM = [weight(12) for _ in range(3)] + [1 + weight(12) ** 2]
NORMED = relu(batch_norm(X, *[NORM[k] for k in (0, 3, 1, 2)]))
EXPANDED = relu6(conv2d(X, weight(1, 1, 12, 80), weight(80)))
D2, B2 = weight(3, 3, 1, 80), weight(80)

# The graph, and how many kernels are left.
CASES: dict[str, tuple[Node, int]] = {
    "depthwise": (conv2d(DEPTHWISE, W, A), 1),
    "a stride": (conv2d(conv2d(X, D, padding=1, stride=2, groups=12), W), 1),
    "an activation after": (relu(conv2d(DEPTHWISE, W, A)), 1),
    "a residual after": (add(conv2d(DEPTHWISE, weight(1, 1, 12, 12)), X), 1),
    "a matrix product": (linear(DEPTHWISE, weight(12, 9)), 1),
    "element-wise": (concatenate([X, conv2d(NORMED, W)]), 1),
    "depthwise over a product": (relu6(conv2d(EXPANDED, D2, B2, padding=1, groups=80)), 1),
    "without padding": (conv2d(EXPANDED, D2, stride=2, groups=80), 1),
    "three layers": (conv2d(conv2d(EXPANDED, D2, padding=1, groups=80), weight(1, 1, 80, 9)), 2),
    "two readers": (concatenate([conv2d(DEPTHWISE, W), DEPTHWISE]), 2),
    "a window": (conv2d(DEPTHWISE, weight(3, 3, 12, 9)), 2),
    "a stride of the reader": (conv2d(DEPTHWISE, W, stride=2), 1),
    "a dense producer": (conv2d(conv2d(X, weight(3, 3, 12, 12)), W), 2),
}


def kernels(graph: Graph) -> int:
    return sum(isinstance(node, Computed) for node in graph.nodes())


def products(graph: Graph) -> int:
    return sum(multiply_adds(n.statement) for n in graph.nodes() if isinstance(n, Computed))


@pytest.mark.parametrize("case", CASES)
def test_values_stay(case: str) -> None:
    graph = Graph((X,), (CASES[case][0],))
    fused = fuse(fold(graph))
    nested = nest(fused, lambda _: True)
    if case not in ("a window", "a stride of the reader"):
        assert products(nested) == products(fused)
    x = generator.uniform(-1, 1, X.shape).astype(np.float32)
    (expected,) = reference.evaluate(graph, x)
    (got,) = reference.evaluate(nested, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bits_stay_and_kernels_go(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output, count = CASES[case]
    graph = Graph((X,), (output,))
    x = generator.uniform(-1, 1, X.shape).astype(np.float32)
    nested = compile_graph(graph, algorithm="direct")
    compute = [kernel for kernel in nested.kernels if kernel.schedule not in ("border", "generic")]
    assert len(compute) == count
    results = [Executable(nested, threads=threads)(x)[0] for threads in (1, 2, 3)]
    for schedule in ("staged", "planes"):
        monkeypatch.setattr(f"striate.compiler.schedules.{schedule}.pays", lambda *_: False)
    (expected,) = Executable(compile_graph(graph, algorithm="direct"))(x)
    for got in results:
        np.testing.assert_array_equal(got, expected)
