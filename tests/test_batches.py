"""A batch in parts, section by section: the same bits, in less memory, only where it may be."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate import layers, models
from striate.compiler import compile as compiling
from striate.compiler import compile_graph
from striate.compiler.batches import chained, divided
from striate.compiler.program import Program
from striate.compiler.sections import Section, sections, split
from striate.compiler.target import Target
from striate.layers import Conv2d, ReLU, Sequential
from striate.network.graph import Computed, Graph, Input, Node
from striate.runtime.executable import Executable
from striate.runtime.roofline import timed_phases

HOST = Target.host()
SMALL = replace(HOST, l3=1 << 18, bytes_per_second=1e9)


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
    assert whole.sections == ()
    assert parts.sections
    assert all(12 % number == 0 for _, number in parts.sections)
    assert sum(phases * number for phases, number in parts.sections) == len(parts.phases)
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
    program = chained([(compile_graph(part, algorithm="direct"), parts)])
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


def numbers(graph: Graph, target: Target) -> list[int]:
    return [section.parts for section in sections(graph, target)]


def test_what_fits_the_cache_or_has_many_weights_is_not_divided() -> None:
    assert numbers(network(12), replace(HOST, l3=1 << 40)) == [1]
    assert numbers(network(12), SMALL)[0] > 1
    assert numbers(network(1), SMALL) == [1]
    assert numbers(network(7, 48), SMALL) == [7]
    heavy = Sequential(Conv2d(3, 512, 3), Conv2d(512, 512, 3)).trace((8, 8, 8, 3))
    assert numbers(heavy, SMALL) == [1]
    joined = layers.equation("y[b,i] = x[b,i] - sum[a](x[a,i]) / 4")(x=Input("x", (4, 1 << 20)))
    assert numbers(Graph((Input("x", (4, 1 << 20)),), (joined,)), SMALL) == [1]


def test_large_activations_first_and_many_weights_last_get_sections_of_their_own() -> None:
    early = [Conv2d(3, 64, 3, padding=1), ReLU(), Conv2d(64, 8, 3, stride=4)]
    late = [Conv2d(8, 512, 3), Conv2d(512, 512, 3)]
    graph = Sequential(*early, *late).trace((8, 48, 48, 3))
    first, *_, last = found = sections(graph, replace(SMALL, l3=1 << 23))
    assert first.parts == 8
    assert last.parts == 1
    assert [part.graph.inputs[0].shape[0] * part.parts for part in found] == [8] * len(found)
    for one, following in pairwise(found):
        assert one.graph.outputs[0].shape[1:] == following.graph.inputs[0].shape[1:]


@settings(max_examples=20, deadline=None)
@given(
    where=st.sets(st.integers(0, 4)),
    numbers=st.lists(st.sampled_from([1, 2, 3, 6]), min_size=6, max_size=6),
    threads=st.sampled_from([1, 2, 3]),
)
def test_any_cuts_with_any_numbers_of_parts_give_the_same(
    where: set[int], numbers: list[int], threads: int
) -> None:
    """Sections that begin with a window (a halo), a product, a sum with what is read."""
    random = np.random.default_rng(2)
    wide, narrow = (random.standard_normal(s, np.float32) for s in ((3, 3, 3, 5), (1, 1, 5, 5)))
    last = random.standard_normal((5, 7), np.float32)

    def forward(x: Node) -> tuple[list[Node], Node]:
        first = layers.conv2d(x, wide, padding=1)
        second = layers.max_pool2d(layers.relu(first), 3, 1, 1)
        third = layers.add(second, layers.conv2d(second, narrow))
        fourth = layers.avg_pool2d(third, 3, 2)
        fifth = layers.global_avg_pool2d(fourth)
        return [first, second, third, fourth, fifth], layers.linear(fifth, last)

    given = Input("x", (6, 9, 9, 3))
    nodes, output = forward(given)
    cuts = [node for k, node in enumerate(nodes) if k in where and isinstance(node, Computed)]
    graph = Graph((given,), (output,))
    found = []
    for whole, parts in zip(split(graph, cuts), numbers, strict=False):
        part = divided(whole, parts)
        assert part is not None
        found.append(Section(part, parts))
    assert len(found) == len(where) + 1
    target = replace(HOST, l3=1 << 40)
    with pytest.MonkeyPatch.context() as patched:
        (expected,) = results(compile_graph(graph, target, algorithm="exact"), graph)
        patched.setattr(compiling, "sections", lambda graph, target: found)
        program = compile_graph(graph, target, algorithm="exact")
    assert [parts for _, parts in program.sections or ((0, 1),)] == [s.parts for s in found]
    (result,) = results(program, graph, threads)
    np.testing.assert_array_equal(result, expected)


def test_a_growing_concatenation_is_not_cut_from_what_it_grows_on() -> None:
    """DenseNet's would be copied by every layer if it grew on an input."""
    model = models.create("densenet121")
    graph = model.trace((8, 224, 224, 3), abstract=True)
    assert compile_graph(graph, replace(HOST, l3=32 << 20)).arena_bytes < 16e6


def test_layers_are_reported_once_with_the_work_of_all_parts() -> None:
    graph = network(12)
    whole, parts = (compile_graph(graph, target) for target in (HOST, SMALL))
    seconds = [1.0 + number for number in range(len(parts.phases))]
    rows = timed_phases(parts, seconds)
    assert sum(row.seconds for row in rows) == sum(seconds)
    work = sum(step.multiply_adds for phase in whole.phases for step in phase)
    assert sum(row.multiply_adds for row in rows) == work
    assert len(rows) == sum(phases for phases, _ in parts.sections)


def test_a_network_of_many_images_takes_little_memory() -> None:
    """MobileNet's activations take 6 MB an image."""
    model = models.create("mobilenet_v2")
    target = replace(HOST, l3=32 << 20)
    eight, many = (
        compile_graph(model.trace((images, 224, 224, 3), abstract=True), target)
        for images in (8, 64)
    )
    assert eight.arena_bytes < 10e6
    assert many.arena_bytes < 30e6
