"""Networks whose products are made by pairs of terms: their numbers, whom they may be taken for."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_harness import RUNNABLE
from random_graphs import close, evaluate, inputs_for, poison

from striate.compiler import compile_graph
from striate.compiler.target import Target
from striate.layers import add, batch_norm, concatenate, conv2d, max_pool2d, relu, relu6
from striate.network.graph import Graph, Input, Node
from striate.runtime import Executable

generator = np.random.default_rng(5)
X = Input("x", (2, 17, 18, 20))


def weight(*shape: int) -> np.ndarray:
    return generator.uniform(-1, 1, shape).astype(np.float32)


def pointwise(x: Node, features: int) -> Node:
    return conv2d(x, weight(1, 1, x.shape[-1], features), weight(features))


def inverted_residual(x: Node) -> Node:
    """A product within a depthwise convolution, and one of it."""
    wide = relu6(pointwise(x, 120))
    deep = relu6(conv2d(wide, weight(3, 3, 1, 120), weight(120), padding=1, groups=120))
    return add(pointwise(deep, x.shape[-1]), x)


def normed(x: Node) -> Node:
    """An element-wise layer before its product."""
    size = x.shape[-1]
    return relu(batch_norm(x, weight(size), weight(size) ** 2 + 1, weight(size), weight(size)))


def network() -> Graph:
    first = inverted_residual(inverted_residual(X))
    branches = [pointwise(first, 33), pointwise(normed(first), 64), max_pool2d(first, 3, 1, 1)]
    joined = concatenate(branches)
    deep = relu(conv2d(joined, weight(3, 3, joined.shape[-1], 64), padding=1))
    last = conv2d(deep, weight(3, 3, 64, 80), stride=2, padding=1)
    outputs = [last, pointwise(deep, 40)]
    return Graph((X,), tuple(outputs))


NETWORK = network()


def compiled(target: str, threads: int) -> Executable:
    adders = replace(Target.named(target), adders=True)
    return Executable(compile_graph(NETWORK, adders), threads)


@pytest.mark.parametrize("target", RUNNABLE)
def test_the_numbers_are_the_networks_for_any_number_of_threads(target: str) -> None:
    arrays = inputs_for(NETWORK)
    made = [compiled(target, threads) for threads in (1, 2, 5)]
    assert "inner_product" in {kernel.schedule for kernel in made[0].program.kernels}
    results = []
    for executable in made * 2:
        poison(executable)
        results.append(executable(*arrays))
    close(results[0], evaluate(NETWORK, *arrays), 2e-5)
    for result in results[1:]:
        for got, wanted in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("algorithm", ["direct", "exact"])
def test_who_forbids_fast_algorithms_gets_none(algorithm: str) -> None:
    target = replace(Target.named(RUNNABLE[0]), adders=True)
    program = compile_graph(NETWORK, target, algorithm=algorithm)
    assert not {"inner_product", "winograd"} & {kernel.schedule for kernel in program.kernels}


def test_weights_of_the_run_are_not_balanced() -> None:
    target = replace(Target.named(RUNNABLE[0]), adders=True)
    x, filters = Input("x", (1, 20, 20, 64)), Input("W", (1, 1, 64, 64))
    given = Graph((x, filters), (conv2d(x, filters),))
    known = Graph((x,), (conv2d(x, weight(1, 1, 64, 64)),))
    assert "inner_product" in {one.schedule for one in compile_graph(known, target).kernels}
    assert "inner_product" not in {one.schedule for one in compile_graph(given, target).kernels}


def test_a_cpu_without_adders_does_not_pair() -> None:
    program = compile_graph(NETWORK, replace(Target.named(RUNNABLE[0]), adders=False))
    assert "inner_product" not in {kernel.schedule for kernel in program.kernels}
    assert not any("pairs" in kernel.plan for kernel in program.kernels)
