"""Layers nested in the product or pooling that reads them: the same bits, in fewer kernels."""

import numpy as np
import pytest
import reference

from striate.compiler import compile_graph
from striate.layers import (
    Conv2d,
    MaxPool2d,
    Sequential,
    add,
    avg_pool2d,
    batch_norm,
    concatenate,
    conv2d,
    linear,
    max_pool2d,
    relu,
    relu6,
)
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
DENSE = relu(conv2d(X, weight(3, 3, 12, 40), weight(40), padding=1))

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
    "a pooling": (max_pool2d(DENSE, 2), 1),
    "a pooling, then an activation": (relu(max_pool2d(conv2d(X, weight(3, 3, 12, 20)), 2)), 1),
    "an average": (avg_pool2d(DENSE, 2), 1),
    "a residual before a pooling": (
        max_pool2d(relu(add(conv2d(X, weight(1, 1, 12, 12)), X)), 2),
        1,
    ),
    "a pooling by a part of a window": (max_pool2d(DENSE, 2, ceil_mode=True), 2),
    "a pooling whose windows meet": (max_pool2d(DENSE, 3, stride=2), 2),
    "a pooling of a depthwise layer": (max_pool2d(DEPTHWISE, 2), 2),
    "a pooling between products": (conv2d(max_pool2d(DENSE, 2), weight(1, 1, 40, 8)), 2),
    "two readers of a pooled layer": (concatenate([max_pool2d(DENSE, 2), avg_pool2d(DENSE, 2)]), 3),
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
    if not any(word in case for word in ("window", "stride of the reader", "pool", "average")):
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
    results = [Executable(nested, threads=threads)(x)[0] for threads in (1, 2, 3, 7)]
    for schedule in ("staged", "planes"):
        monkeypatch.setattr(f"striate.compiler.schedules.{schedule}.pays", lambda *_: False)
    monkeypatch.setattr("striate.compiler.compile.pools", lambda *_: False)
    (expected,) = Executable(compile_graph(graph, algorithm="direct"))(x)
    for got in results:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("algorithm", ["auto", "direct", "exact"])
def test_a_pooling_is_part_of_the_layer(algorithm: str) -> None:
    graph = Graph((X,), (max_pool2d(DENSE, 2),))
    program = compile_graph(graph, algorithm=algorithm)
    schedules = {kernel.schedule for kernel in program.kernels}
    assert ("winograd" in schedules) == (algorithm == "auto")
    assert "window" not in schedules
    x = generator.uniform(-1, 1, X.shape).astype(np.float32)
    (expected,) = reference.evaluate(graph, x)
    first, *others = [Executable(program, threads=n)(x)[0] for n in (1, 2, 3, 7)]
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-4)
    for got in others:
        np.testing.assert_array_equal(got, first)


def test_what_is_watched_is_not_pooled_away() -> None:
    graph = Graph((X,), (DENSE, max_pool2d(DENSE, 2)))
    program = compile_graph(graph, watched=True)
    assert "window" in {kernel.schedule for kernel in program.kernels}
    assert [view.shape for view in program.views] == [node.shape for node in graph.outputs]


def test_a_pooled_layer_keeps_its_name() -> None:
    nested = nest(
        fuse(Sequential(Conv2d(3, 8, 3), MaxPool2d(2)).trace((1, 9, 9, 3))), lambda _: True
    )
    assert [node.label for node in nested.nodes() if isinstance(node, Computed)] == ["0"]


def test_what_no_window_reads_is_not_computed() -> None:
    fused = fuse(fold(Graph((X,), (max_pool2d(DENSE, 2),))))
    nested = nest(fused, lambda _: True)
    assert products(fused) == 2 * 33 * 34 * 40 * 108
    assert products(nested) == 2 * 32 * 34 * 40 * 108
