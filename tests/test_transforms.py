"""Folding and fusing: fewer kernels for the same values, not where a value has other readers."""

from collections.abc import Callable

import numpy as np
import pytest
from random_graphs import Weights, check, close, evaluate, inputs_for, steps

import striate as st
from striate.layers import add, batch_norm, concatenate, scale_and_shift
from striate.network.graph import Computed, Graph, Input, Node, Parameter
from striate.notation import to_text
from striate.notation.ir import Apply, Reduce
from striate.transforms.fold import fold
from striate.transforms.fuse import fuse


def images(features: int = 8) -> Input:
    return Input("images", (2, 6, 7, features))


def computed(graph: Graph) -> list[Computed]:
    return [node for node in graph.nodes() if isinstance(node, Computed)]


def transformed(transform: Callable[[Graph], Graph], x: Input, *outputs: Node) -> Graph:
    """The graph after `transform`, which keeps its meaning and the compiled values."""
    graph = Graph((x,), outputs)
    after = transform(graph)
    arrays = inputs_for(graph)
    expected = evaluate(graph, *arrays)
    close(tuple(evaluate(after, *arrays)), expected, 1e-5)
    check(graph)
    return after


CONVOLUTIONS: list[Callable[[Weights, Node], Node]] = [
    lambda w, x: w.convolve(x, 12, padding=1),
    lambda w, x: w.convolve(x, 12, padding=1, bias=True),
    lambda w, x: w.convolve(x, 12, 1, stride=2, bias=True),
    lambda w, x: w.convolve(x, 8, groups=8, padding=1),
    lambda w, x: w.convolve(x, 8, groups=8, padding=1, bias=True),
    lambda w, x: w.convolve(x, 12, groups=4, dilation=2, padding=2, bias=True),
    lambda w, x: w.convolve(x, 4, groups=2, bias=True),
]


@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
def test_batch_norm_goes_into_its_convolution(number: int) -> None:
    w, x = Weights(), images()
    y = CONVOLUTIONS[number](w, x)
    after = transformed(fold, x, w.normalise(y))
    (node,) = computed(after)
    assert isinstance(node.statement.equation.expression, Apply)
    assert isinstance(node.statement.equation.expression.arguments[0], Reduce)
    # The equation is that of a convolution with a bias, whatever the statistics were.
    assert len(node.operands) == 3
    assert "sqrt" not in to_text(node.statement.equation)


def test_normalisations_in_a_row_all_fold() -> None:
    w, x = Weights(), images()
    y = w.normalise(w.normalise(w.convolve(x, 12, padding=1)))
    assert len(computed(transformed(fold, x, scale_and_shift(y, w.array(12), w.array(12))))) == 1


def test_linear_takes_its_normalisation() -> None:
    w = Weights()
    x = Input("x", (3, 5))
    y = w.normalise(st.linear(x, w.array(5, 7), w.array(7)))
    assert len(computed(transformed(fold, x, y))) == 1


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.5])
def test_epsilon_is_under_the_root(eps: float) -> None:
    w, x = Weights(), images()
    mean, variance = w.array(8), w.array(8, low=0, high=0.01)
    transformed(fold, x, batch_norm(w.convolve(x, 8, 1), mean, variance, eps=eps))


def test_convolution_with_other_readers_keeps_its_weights() -> None:
    w, x = Weights(), images()
    y = w.convolve(x, 8, padding=1)
    assert len(computed(transformed(fold, x, add(w.normalise(y), y)))) == 3
    assert len(computed(transformed(fold, x, w.normalise(y), y))) == 2
    assert len(computed(transformed(fold, x, w.normalise(y), w.normalise(y)))) == 3
    twice = concatenate([w.normalise(y), y])
    assert len(computed(transformed(fold, x, twice))) == 2


def test_shared_weights_are_scaled_for_one_reader_alone() -> None:
    w, x = Weights(), images()
    weight = Parameter("weight", w.array(3, 3, 8, 8))
    y = w.normalise(st.conv2d(x, weight, padding=1))
    kept = weight.array.copy()
    transformed(fold, x, st.conv2d(y, weight, padding=1))
    np.testing.assert_array_equal(weight.array, kept)


def test_normalisation_after_an_activation_stays() -> None:
    w, x = Weights(), images()
    for activation in (st.relu, st.relu6, st.sigmoid):
        y = w.normalise(activation(w.convolve(x, 8, padding=1)))
        after = transformed(fold, x, y)
        assert len(computed(after)) == 3
        # It is one product and one sum by then.
        assert "sqrt" not in to_text(computed(after)[-1].statement.equation)


def test_normalisation_of_an_input_or_a_concatenation_is_scale_and_shift() -> None:
    w, x = Weights(), images()
    joined = concatenate([x, w.convolve(x, 3, 1)])
    for given in (x, joined):
        after = transformed(fold, x, w.normalise(given))
        assert "sqrt" not in to_text(computed(after)[-1].statement.equation)


def test_weights_that_are_given_are_not_folded() -> None:
    w, x = Weights(), images()
    weight = Input("weight", (3, 3, 8, 8))
    y = w.normalise(st.conv2d(x, weight, padding=1))
    graph = Graph((x, weight), (y,))
    check(graph)
    assert len(computed(fold(graph))) == 2
    # A bias that is given can't be folded, but the weights before it must not be scaled either.
    bias = Input("bias", (8,))
    y = w.normalise(st.conv2d(x, w.array(3, 3, 8, 8), bias, padding=1))
    check(Graph((x, bias), (y,)))


@pytest.mark.parametrize("text", ["relu({} * s[i])", "{} * {} * s[i]", "s[i] / {}", "{}"])
def test_what_is_not_affine_is_not_folded(text: str) -> None:
    w, x = Weights(), images()
    y = w.convolve(x, 8, 1)
    node = st.equation(f"y[b,p,q,i] = {text.format(*['(x[b,p,q,i] + 3)'] * 2)}")
    given = {"s": Parameter("s", w.array(8, low=1, high=2))} if "s[i]" in text else {}
    after = transformed(fold, x, node(x=y, **given))
    assert len(computed(after)) == 2


def test_pooling_is_no_contraction() -> None:
    w, x = Weights(), images()
    for pooled in (st.max_pool2d(x, 3, 1, 1), st.avg_pool2d(x, 3, 1, 1)):
        transformed(fold, x, w.normalise(pooled))


def test_weights_that_are_read_twice_are_not_scaled() -> None:
    """Scaling them would not scale the sum."""
    w = Weights()
    x = Input("x", (3, 7))
    squared = st.equation("y[b,j] = sum[i](W[b,i,j] * W[b,i,j])")
    node = squared(W=Parameter("W", w.array(3, 5, 7)))
    transformed(fold, x, add(w.normalise(node), x))
    own = st.equation("y[b,j] = sum[i](W[j] * x[b,i]) + W[j]")
    transformed(fold, x, w.normalise(own(W=Parameter("W", w.array(5)), x=x)))


def both(graph: Graph) -> Graph:
    return fuse(fold(graph))


@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
@pytest.mark.parametrize("activation", [st.relu, st.relu6, st.sigmoid])
def test_activation_goes_into_its_convolution(number: int, activation: Callable[..., Node]) -> None:
    w, x = Weights(), images()
    y = activation(w.normalise(CONVOLUTIONS[number](w, x)))
    assert len(computed(transformed(both, x, y))) == 1


@pytest.mark.parametrize("flip", [False, True])
def test_residual_goes_into_the_convolution(flip: bool) -> None:
    w, x = Weights(), images()
    first = st.relu(w.convolve(x, 8, padding=1))
    y = w.normalise(w.convolve(first, 8, padding=1))
    total = add(x, y) if flip else add(y, x)
    assert len(computed(transformed(both, x, st.relu(total)))) == 2


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_convolutions_added_the_later_takes_the_sum(flip: bool) -> None:
    """A residual block with a convolution on its shortcut: the deep branch ends in the sum."""
    w, x = Weights(), images()
    deep = w.convolve(st.relu(w.convolve(x, 12, padding=1)), 12, padding=1)
    shortcut = w.convolve(x, 12, 1)
    y = st.relu(add(shortcut, deep) if flip else add(deep, shortcut))
    *_, last = computed(transformed(both, x, y))
    assert (3, 3, 12, 12) in [operand.shape for _, operand in last.operands]


def test_grouped_residual() -> None:
    """The output of a grouped convolution is written at N*g+j, the residual is read there."""
    w, x = Weights(), images()
    y = add(w.normalise(w.convolve(x, 8, groups=4, padding=1)), x)
    after = transformed(both, x, st.relu(scale_and_shift(y, w.array(8), w.array(8))))
    assert len(computed(after)) == 1


def test_value_with_other_readers_is_not_fused() -> None:
    w, x = Weights(), images()
    y = w.convolve(x, 8, padding=1)
    assert len(computed(transformed(both, x, add(st.relu(y), st.sigmoid(y))))) == 2
    assert len(computed(transformed(both, x, st.relu(y), y))) == 2
    assert len(computed(transformed(both, x, w.convolve(st.relu(x), 8, padding=1)))) == 2


def test_value_used_twice_by_its_only_reader_is_computed_once() -> None:
    """Swish: the product reads the sum and its sigmoid; it stays one contraction."""
    w, x = Weights(), images()
    y = w.convolve(x, 8, padding=1)
    swish = st.equation("y[b,p,q,i] = x[b,p,q,i] * sigmoid(x[b,p,q,i])")
    product = swish(x=y)
    after = transformed(both, x, product)
    assert len(computed(after)) == 1
    assert "direct" in steps(check(Graph((x,), (product,))))


def test_squeeze_and_excitation() -> None:
    """A scale for each image and feature, read at [b,i], is no reader in place."""
    w, x = Weights(), images()
    y = w.convolve(x, 8, padding=1)
    pooled = st.global_avg_pool2d(y)
    gate = st.sigmoid(st.linear(st.relu(st.linear(pooled, w.array(8, 2))), w.array(2, 8)))
    scaled = st.equation("y[b,p,q,i] = x[b,p,q,i] * s[b,i]")(x=y, s=gate)
    transformed(both, x, w.convolve(scaled, 3, 1))


def test_chain_of_element_wise_work_is_one_kernel() -> None:
    w, x = Weights(), images()
    y: Node = x
    for _ in range(3):
        y = st.relu6(add(w.normalise(y), st.sigmoid(x)))
    assert len(computed(transformed(both, x, y))) == 1


def test_names_that_meet_are_kept_apart() -> None:
    """Producer and reader use one name for different tensors and indices."""
    w, x = Weights(), images()
    y = st.equation("y[i,j,u,v] = sum[b,p,q](W[b,p,q,v] * x[i,j+b-1,u+p-1,q]) + B[v]")(
        x=x, W=w.array(3, 3, 8, 8), B=w.array(8)
    )
    # Even the reader's output is called as an operand of the producer is.
    after = st.equation("B[p,b,v,q] = relu(y[p,b,v,q] * W[q] + x[p,b,v,q])")(y=y, W=w.array(8), x=x)
    assert len(computed(transformed(both, x, after))) == 1


def test_reader_that_permutes_is_not_fused() -> None:
    x = Input("x", (3, 5, 5))
    doubled = st.equation("y[a,b,c] = 2 * x[a,b,c]")(x=x)
    turned = st.equation("z[a,b,c] = y[a,c,b] + y[a,b,c]")(y=doubled)
    transformed(both, x, turned)
    shifted = st.equation("z[a,b,c] = y[a,b,c] + y[a,b-1,c]")(y=doubled)
    transformed(both, x, shifted)
    inner = st.equation("z[a,b,c] = sum[k](y[a,b,k]) * y[a,b,c]")(y=doubled)
    transformed(both, x, inner)
