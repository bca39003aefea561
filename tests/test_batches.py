"""A batch in parts: the same numbers to the bit, in less memory, and only where it may be."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate import layers, models
from striate.compiler import compile_graph
from striate.compiler.batches import divided, repeated, worthwhile_parts
from striate.compiler.plan import make_plan
from striate.compiler.program import Program
from striate.compiler.target import Target
from striate.layers import Conv2d, ReLU, Sequential
from striate.network.graph import Graph, Input, Node
from striate.runtime.executable import Executable
from striate.runtime.roofline import timed_phases

HOST = Target.host()
SMALL = replace(HOST, l3=1 << 18)


def network(images: int, size: int = 32) -> Graph:
    """Convolutions whose activations soon outgrow a small cache."""
    wide = Sequential(Conv2d(3, 24, 3, padding=1), ReLU(), Conv2d(24, 8, 1), Conv2d(8, 5, 3))
    return wide.trace((images, size, size, 3))


def drawn(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(given.shape, np.float32) for given in graph.inputs]


def results(program: Program, graph: Graph, threads: int = 1) -> list[np.ndarray]:
    return list(Executable(program, threads)(*drawn(graph)))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("algorithm", ["auto", "direct"])
def test_a_small_cache_divides_the_batch_and_changes_no_bit(threads: int, algorithm: str) -> None:
    graph = network(12)
    whole = compile_graph(graph, replace(HOST, l3=1 << 40), algorithm=algorithm)
    parts = compile_graph(graph, SMALL, algorithm=algorithm)
    assert whole.parts == 1
    assert parts.parts > 1
    assert 12 % parts.parts == 0
    assert parts.arena_bytes < whole.arena_bytes
    assert (parts.inputs, parts.outputs) == (whole.inputs, whole.outputs)
    for found, expected in zip(results(parts, graph, threads), results(whole, graph), strict=True):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=20, deadline=None)
@given(parts=st.integers(1, 5), each=st.integers(1, 3), size=st.integers(3, 9))
def test_any_number_of_parts_gives_the_same(parts: int, each: int, size: int) -> None:
    """With concatenation, a residual sum, pooling and features that end a row."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((3, 3, 3, 5), np.float32)
    last = random.standard_normal((10, 7), np.float32)

    def forward(x: Node) -> Node:
        y = layers.relu(layers.conv2d(x, weight, padding=1))
        z = layers.add(y, layers.max_pool2d(y, 3, 1, 1))
        joined = layers.concatenate([y, z])
        return layers.linear(layers.global_avg_pool2d(joined), last)

    given = Input("x", (parts * each, size, size, 3))
    graph = Graph((given,), (forward(given),))
    part = divided(graph, parts)
    assert part is not None
    assert part.inputs[0].shape == (each, size, size, 3)
    program = repeated(compile_graph(part, algorithm="direct"), parts)
    (expected,) = results(compile_graph(graph, algorithm="direct"), graph)
    (found,) = results(program, graph, 2)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "text",
    [
        "y[b,i] = x[b,i] - sum[a](x[a,i]) / 4",  # a mean over the batch
        "y[b,i] = x[b,i] * b",  # the number of the image
        "y[i,b] = x[b,i]",  # the batch elsewhere
        "y[b,i] = x[b+1,i]",  # another image's
        "y[b,i] = x[b,i] * w[b,i]",  # weights of each image
        "y[b,i] = sum[j](x[b,j] * x[j,i])",
    ],
)
def test_images_that_need_each_other_stay_together(text: str) -> None:
    weights = {"w": np.ones((4, 4), np.float32)} if "w[" in text else {}
    given = Input("x", (4, 4))
    node = layers.equation(text)(x=given, **weights)
    assert divided(Graph((given,), (node,)), 2) is None


def test_what_fits_the_cache_or_has_many_weights_is_not_divided() -> None:
    def parts(graph: Graph, target: Target) -> int:
        return worthwhile_parts(make_plan(graph, target), target)

    assert parts(network(12), HOST) == 1
    assert parts(network(12), SMALL) > 1
    assert parts(network(1), SMALL) == 1
    assert parts(network(7, 48), SMALL) == 7
    heavy = Sequential(Conv2d(3, 512, 3), Conv2d(512, 512, 3)).trace((8, 8, 8, 3))
    assert parts(heavy, SMALL) == 1


def test_layers_are_reported_once_with_the_work_of_all_parts() -> None:
    graph = network(12)
    whole, parts = (compile_graph(graph, target) for target in (HOST, SMALL))
    seconds = [1.0 + number for number in range(len(parts.phases))]
    rows = timed_phases(parts, seconds)
    assert sum(row.seconds for row in rows) == sum(seconds)
    work = sum(step.multiply_adds for phase in whole.phases for step in phase)
    assert sum(row.multiply_adds for row in rows) == work
    assert len(rows) == len(parts.phases) // parts.parts


def test_a_network_of_many_images_takes_little_memory() -> None:
    """MobileNet's activations take 6 MB an image."""
    model = models.create("mobilenet_v2")
    target = replace(HOST, l3=32 << 20)
    eight, many = (
        compile_graph(model.trace((images, 224, 224, 3), abstract=True), target)
        for images in (8, 64)
    )
    assert eight.parts > 1
    assert many.arena_bytes == eight.arena_bytes < 17e6
