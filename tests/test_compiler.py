"""Compiled networks compute what their nodes say, to the same bits for any threads and batch."""

import numpy as np
import pytest
from random_graphs import check, close, evaluate, executable, inputs_for, poison, random_graph

import striate as st
from striate.network.graph import Graph, Input, Node

SEEDS = range(24)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graph(seed: int) -> None:
    graph = random_graph(seed, batch=2)
    check(graph, "auto" if seed % 3 == 0 else "direct", "avx2" if seed % 4 == 1 else None)


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_same_bits_for_any_number_of_threads(seed: int) -> None:
    graph = random_graph(seed, batch=2)
    arrays = inputs_for(graph)
    expected = executable(graph, 1)(*arrays)
    for threads in (2, 3, 7):
        made = executable(graph, threads)
        for _ in range(3):
            poison(made)
            for got, wanted in zip(made(*arrays), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("seed", SEEDS[8:16])
def test_batch_is_its_images_one_by_one(seed: int) -> None:
    together, alone = random_graph(seed, batch=3), random_graph(seed, batch=1)
    images, filters = inputs_for(together)
    one = executable(alone)
    every = executable(together)(images, filters)
    for k in range(3):
        parts = one(images[k : k + 1], filters)
        for got, wanted in zip(parts, every, strict=True):
            np.testing.assert_array_equal(got, wanted[k : k + 1])


def test_random_graphs_are_varied() -> None:
    """The graphs hold what the tests are about."""
    graphs = [random_graph(seed, 1) for seed in SEEDS]
    labels = {getattr(node, "label", "") for graph in graphs for node in graph.nodes()}
    assert {"conv2d", "batch_norm", "relu", "add", "concatenate", "channel_shuffle"} <= labels
    assert any(len({id(out) for out in g.outputs}) < len(g.outputs) for g in graphs)
    assert any(g.inputs[0] in g.outputs for g in graphs)
    assert sum(g.inputs[1] in g.nodes() for g in graphs) > 2


def test_close_is_close() -> None:
    graph = random_graph(0, 1)
    arrays = inputs_for(graph)
    expected = evaluate(graph, *arrays)
    wrong = [value + 1e-3 * np.max(np.abs(value)) for value in expected]
    with pytest.raises(AssertionError):
        close(executable(graph)(*arrays), wrong, 2e-5)


@pytest.mark.parametrize("late", [0, 1, 2])
def test_weights_packed_within_a_run_last_until_they_are_read(late: int) -> None:
    """Others that are packed meanwhile lie elsewhere, and those after them in the same memory."""
    shapes = {"x": (1, 6, 6, 16), "V": (1, 1, 16, 16), "W": (1, 1, 16, 16)}
    x, v, w = given = tuple(Input(name, shape) for name, shape in shapes.items())
    kernels = [w if number == late else st.relu(v) for number in range(3)]
    node: Node = x
    for kernel in kernels:
        node = st.relu(st.conv2d(node, kernel))
    graph = Graph(given, (node,))
    arrays = [np.random.default_rng(n).uniform(-1, 1, i.shape) for n, i in enumerate(given)]
    (expected,) = evaluate(graph, *[array.astype(np.float32) for array in arrays])
    (got,) = executable(graph, 1)(*[array.astype(np.float32) for array in arrays])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
