"""Every tensor has its place: arena, halos, concatenations in place, outputs that are read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from random_graphs import Weights, check, executable, inputs_for, steps

import striate as st
from striate.compiler import compile_graph
from striate.compiler.arena import ALIGNMENT, Lifetime, allocate
from striate.layers import add, concatenate
from striate.network.graph import Graph, Input, Node, Parameter
from striate.notation import parse, resolve

lifetimes = hs.builds(
    lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
    hs.integers(1, 1000),
    hs.integers(0, 12),
    hs.integers(0, 6),
)


@settings(deadline=None, max_examples=200)
@given(hs.lists(lifetimes, max_size=25))
def test_buffers_that_live_together_lie_apart(lives: list[Lifetime]) -> None:
    offsets, total = allocate(lives)
    for k, (one, start) in enumerate(zip(lives, offsets, strict=True)):
        assert start % ALIGNMENT == 0
        assert start + one.nbytes <= total
        for other, place in zip(lives[:k], offsets, strict=False):
            if one.first <= other.last and other.first <= one.last:
                assert start + one.nbytes <= place or place + other.nbytes <= start


@settings(deadline=None, max_examples=50)
@given(hs.lists(lifetimes, min_size=1, max_size=25))
def test_memory_is_used_again(lives: list[Lifetime]) -> None:
    """The block is at least what lives at once, and no more than everything side by side."""
    sizes = [-(-one.nbytes // ALIGNMENT) * ALIGNMENT for one in lives]
    _, total = allocate(lives)
    at_once = [
        sum(n for one, n in zip(lives, sizes, strict=True) if one.first <= phase <= one.last)
        for phase in range(20)
    ]
    assert max(at_once) <= total <= sum(sizes)


def test_a_chain_takes_two_buffers() -> None:
    lives = [Lifetime(1000, k, k + 1) for k in range(10)]
    assert allocate(lives)[1] == 2 * 1024


def images(features: int = 8, batch: int = 1, size: int = 6) -> Input:
    return Input("images", (batch, size, size + 1, features))


def graph_of(*outputs: Node) -> Graph:
    given = {id(n): n for n in Graph((), outputs).nodes() if isinstance(n, Input)}
    return Graph(tuple(given.values()), outputs)


def test_memory_is_known_before_the_run() -> None:
    w, x = Weights(), images(32, size=16)
    y: Node = x
    for _ in range(6):
        y = w.convolve(y, 32, padding=1)
    program = compile_graph(graph_of(y), algorithm="direct")
    # Two images with their margins, not seven.
    image = 4 * 18 * 19 * 32
    assert 2 * image <= program.arena_bytes <= 3 * image
    made = executable(graph_of(y))
    before = made.arena.ctypes.data
    made(*inputs_for(graph_of(y)))
    assert (made.arena_bytes, made.arena.ctypes.data) == (made.program.arena_bytes, before)


def test_growing_concatenations_are_in_place() -> None:
    """DenseNet's: every layer reads all before it, and only one memory holds them."""
    w, x = Weights(), images()
    grown = w.convolve(x, 8, padding=1)
    parts = [grown]
    for _ in range(4):
        y = w.convolve(st.relu(w.normalise(grown)), 16, 1)
        parts.append(w.convolve(y, 4, 3, padding=1))
        grown = concatenate(parts)
    made = check(graph_of(w.convolve(grown, 8, 1)))
    # The first convolution; relu, 1x1 and 3x3 four times; the last convolution.
    kernels = [s for s in steps(made) if s != "border"]
    assert len([s for s in kernels if s == "direct"]) == 10
    # The image that the first convolution reads past its border, and the normalisations.
    assert len([s for s in kernels if s == "generic"]) == 5


def test_branches_write_into_their_concatenation() -> None:
    w, x = Weights(), images()
    stem = w.convolve(x, 16, 1)
    inner = concatenate([w.convolve(stem, 4, 1), w.convolve(stem, 5, 3, padding=1)])
    outer = concatenate([w.convolve(stem, 7, 1), inner, st.max_pool2d(stem, 3, 1, 1)])
    made = check(graph_of(w.convolve(st.relu(w.convolve(outer, 8, 3, padding=1)), 3, 1)))
    assert "generic" not in steps(made)


def test_halo_around_a_concatenation_is_each_readers_own() -> None:
    """Parts are read with a margin and without, before and after they are joined."""
    w, x = Weights(), images(batch=2)
    a, b = w.convolve(x, 5, 1), w.convolve(x, 3, 1)
    joined = concatenate([a, b])
    whole = w.convolve(joined, 4, 5, padding=2)
    part = w.convolve(a, 4, 3, padding=1)
    check(graph_of(add(whole, part), st.max_pool2d(joined, 3, 1, 1), w.convolve(b, 2, 1)))


def test_part_used_in_two_concatenations() -> None:
    w, x = Weights(), images()
    a, b, c = (w.convolve(x, n, 1) for n in (3, 4, 5))
    check(graph_of(concatenate([a, b]), concatenate([b, c]), concatenate([c, b, a])))
    ends = [w.convolve(concatenate(parts), 2, 1) for parts in ([a, b], [b, a], [a, c], [a, b, c])]
    check(graph_of(add(add(ends[0], ends[1]), add(ends[2], ends[3]))))


def test_same_part_twice() -> None:
    w, x = Weights(), images()
    a = w.convolve(x, 3, 1)
    check(graph_of(concatenate([a, a])))
    check(graph_of(w.convolve(concatenate([a, x, a, x]), 4)))
    both = concatenate([a, st.relu(a)])
    check(graph_of(concatenate([both, both])))
    check(graph_of(w.convolve(concatenate([both, a, both]), 4)))


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_concatenation_along_any_axis(axis: int) -> None:
    w, x = Weights(), images(4)
    a, b = w.convolve(x, 4, 1), st.relu(x)
    joined = concatenate([a, x, b], axis)
    check(graph_of(joined))
    check(graph_of(w.convolve(joined, 3, padding=1), concatenate([joined, joined], 1)))
    # The parts lie side by side already, which is another joint.
    for axes in ((axis, 3), (3, axis)):
        check(graph_of(*[w.convolve(concatenate([a, b], k), 3, 1) for k in axes]))


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("columns", [1, 2])
def test_halo_around_small_images(rows: int, columns: int) -> None:
    w, x = Weights(), Input("x", (2, rows, columns, 3))
    check(
        graph_of(w.convolve(w.convolve(x, 5, 1), 3, 3, padding=1), w.convolve(x, 3, 5, padding=2))
    )


def test_concatenation_of_vectors() -> None:
    x, z = Input("x", (3, 5)), Input("z", (3, 7))
    w = Weights()
    y = st.linear(concatenate([st.relu(x), z, st.sigmoid(x)]), w.array(17, 4))
    check(graph_of(y))
    check(graph_of(concatenate([x, st.relu(x)], 0)))
    check(graph_of(concatenate([Input("a", (3,)), Input("b", (2,))])))


def test_node_used_twice() -> None:
    w, x = Weights(), images()
    y = w.convolve(x, 8, padding=1)
    check(graph_of(add(y, y)))
    check(graph_of(add(st.relu(y), w.convolve(y, 8, padding=1))))


def test_outputs_that_are_read() -> None:
    w, x = Weights(), images()
    y = st.relu(w.convolve(x, 8, padding=1))
    z = w.convolve(y, 8, padding=1)
    check(graph_of(y, z))
    check(graph_of(z, y))
    check(graph_of(y, z, y, z, z))
    both = concatenate([y, z])
    check(graph_of(both, y, w.convolve(both, 2)))


def test_input_as_output() -> None:
    x = images()
    check(graph_of(x))
    check(graph_of(x, x))
    check(graph_of(x, Weights().convolve(x, 3, padding=1), x))


def test_input_that_is_not_read() -> None:
    x, unused = images(), Input("unused", (2, 3))
    check(Graph((unused, x), (st.relu(x),)))


def test_input_read_with_margin_and_without() -> None:
    w, x = Weights(), images(batch=2)
    check(graph_of(add(w.convolve(x, 8, padding=1), w.convolve(x, 8, 1)), st.relu(x)))
    # The residual is the very image that is read past its border.
    check(graph_of(st.relu(add(w.convolve(x, 8, 5, padding=2), x))))


def test_parameter_as_data() -> None:
    w, x = Weights(), images()
    known = Parameter("known", w.array(*x.shape))
    check(graph_of(add(w.convolve(known, 8, padding=1), x)))
    check(graph_of(concatenate([known, x]), known))
    check(graph_of(add(known, known)))
    check(graph_of(st.max_pool2d(known, 3, 1, 1), w.convolve(known, 2, 1)))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("W[u,v,i,j]", (3, 3, 8, 20)),
        ("W[2-u,v+1,i,j]", (3, 5, 8, 20)),
        ("W[j,i,u,v]", (20, 8, 3, 3)),
        ("W[1,2*u,v,i,j]", (2, 7, 3, 8, 20)),
    ],
)
def test_weights_of_any_order_are_packed(text: str, shape: tuple[int, ...], known: bool) -> None:
    x, array = images(), Weights().array(*shape)
    weight: Node = Parameter("weight", array) if known else Input("weight", shape)
    layer = st.equation(f"y[b,p,q,j] = sum[u,v,i]({text} * x[b,2*p+u-1,q+v-1,i])")
    made = check(graph_of(layer(W=weight, x=x, sizes={"u": 3, "v": 3})))
    assert "direct" in steps(made)


def test_nothing_to_compute() -> None:
    statement = resolve(parse("y[()] = 3"), {})
    from striate.network.graph import Computed

    check(Graph((), (Computed(statement, (), "three"),)))


def test_weights_given_at_the_call() -> None:
    x, weight, bias = images(), Input("weight", (3, 3, 8, 20)), Input("bias", (20,))
    made = check(graph_of(st.relu(st.conv2d(x, weight, bias, padding=1))))
    assert "direct" in steps(made)
    deep = Input("deep", (3, 3, 1, 8))
    made = check(graph_of(st.conv2d(x, deep, padding=1, groups=8)))
    assert "grouped" in steps(made)
    grouped = Input("grouped", (3, 3, 2, 8))
    check(graph_of(st.conv2d(x, grouped, padding=1, groups=4, stride=2)))


def test_weights_computed_in_the_network() -> None:
    x = images()
    weight = Input("weight", (3, 3, 8, 8))
    scaled = st.sigmoid(weight)
    y = st.conv2d(x, scaled, padding=1)
    z = st.conv2d(y, scaled, padding=1)
    check(graph_of(z, st.conv2d(st.relu(z), weight, padding=1)))
    check(graph_of(st.conv2d(x, concatenate([weight, scaled]), padding=1)))


@pytest.mark.parametrize("flip", [False, True])
def test_weights_are_packed_before_their_first_reader(flip: bool) -> None:
    """The reader that is drawn first runs last; packing must not wait for it."""
    w, x = Weights(), images()
    weight = Input("weight", (3, 3, 8, 8))
    y: Node = x
    for _ in range(3):
        y = st.relu(w.convolve(y, 8, padding=1))
    late, early = st.conv2d(y, weight, padding=1), st.conv2d(x, weight, padding=1)
    parts = (early, late) if flip else (late, early)
    check(graph_of(*parts))
    check(graph_of(st.max_pool2d(parts[0], 2), st.max_pool2d(parts[1], 2)))


def test_layers_alike_share_a_kernel() -> None:
    w, x = Weights(), images()
    y: Node = w.convolve(x, 8, padding=1)
    for _ in range(5):
        y = st.relu(w.convolve(y, 8, padding=1))
    program = compile_graph(graph_of(w.convolve(y, 8, 1)), algorithm="direct")
    assert len([k for k in program.kernels if k.schedule == "direct"]) <= 4


def test_shared_weights_are_kept_once() -> None:
    w, x = Weights(), images()
    weight = Parameter("weight", w.array(3, 3, 8, 8))
    again = Parameter("again", weight.array)
    y = st.conv2d(st.conv2d(x, weight, padding=1), again, padding=1)
    program = compile_graph(graph_of(y), algorithm="direct")
    assert program.preparation is not None
    assert len(program.preparation.parameters) == 1
    assert len(program.preparation.program.phases[0]) == 1


def test_infinities_stay_in_their_pixels() -> None:
    """Margins hold zeros, not what another tensor left there."""
    w, x = Weights(), images(4)
    y = w.convolve(st.relu(w.convolve(x, 4, padding=1)), 4, padding=1)
    graph = graph_of(y)
    made = executable(graph)
    array = inputs_for(graph)[0]
    calm = made(array)[0]
    array[0, 0, 0, 0] = np.inf
    made(array)
    array[0, 0, 0, 0] = inputs_for(graph)[0][0, 0, 0, 0]
    np.testing.assert_array_equal(made(array)[0], calm)
