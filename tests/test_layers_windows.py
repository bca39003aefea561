"""Convolution and pooling: against plain loops, and where implementations go wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import evaluate

import striate
from striate.layers.convolution import conv2d, im2col
from striate.layers.pooling import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, max_pool2d
from striate.network.graph import Graph, Input
from striate.notation import interpret

ROUNDS = settings(max_examples=60, deadline=None)


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def meaning(layer, *given, **arguments):
    """What a layer's graph says, uncompiled, by the reference and by the interpreter."""
    inputs = tuple([Input(f"x{k}", a.shape) for k, a in enumerate(given)])
    graph = Graph(inputs, (layer(*inputs, **arguments),))
    kept = {}
    (value,) = evaluate(graph, *given, keep=kept)
    nodes = {id(n): a for n, a in zip(inputs, given, strict=True)}
    for node in graph.nodes():
        if hasattr(node, "array"):
            nodes[id(node)] = node.array
        elif hasattr(node, "statement"):
            operands = {name: nodes[id(operand)] for name, operand in node.operands}
            nodes[id(node)] = interpret(node.statement, operands)
    np.testing.assert_allclose(value, nodes[id(graph.outputs[0])], rtol=1e-5, atol=1e-5)
    return value


def loops(x, w, b, stride, pads, dilation, groups):
    """Convolution in plain loops; `pads` is ((top, bottom), (left, right))."""
    x = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    rows, columns, inner, filters = w.shape
    (s, t), (d, e) = stride, dilation
    height = (x.shape[1] - d * (rows - 1) - 1) // s + 1
    width = (x.shape[2] - e * (columns - 1) - 1) // t + 1
    y = np.zeros((x.shape[0], height, width, filters))
    for j in range(filters):
        first = j // (filters // groups) * inner
        for p in range(height):
            for q in range(width):
                for u in range(rows):
                    for v in range(columns):
                        place = x[:, s * p + d * u, t * q + e * v, first : first + inner]
                        y[:, p, q, j] += place @ w[u, v, :, j]
    return y + (0 if b is None else b)


small = st.integers(1, 3)


@ROUNDS
@given(st.data())
def test_conv2d_is_the_loops(data):
    kernel = data.draw(st.tuples(small, small))
    stride, dilation = data.draw(st.tuples(small, small)), data.draw(st.tuples(small, small))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [
        max(1, d * (k - 1) + 1 - 2 * a) for d, k, a in zip(dilation, kernel, padding, strict=True)
    ]
    size = [n + data.draw(st.integers(0, 4)) for n in least]
    groups, inner, filters = data.draw(small), data.draw(small), data.draw(small)
    x, w, b = arrays(
        (2, *size, groups * inner), (*kernel, inner, groups * filters), (groups * filters,)
    )
    bias = data.draw(st.sampled_from([None, b]))
    pads = [(a, a) for a in padding]
    expected = loops(x, w, bias, stride, pads, dilation, groups)
    given_arrays = (x, w) if bias is None else (x, w, b)
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    np.testing.assert_allclose(
        meaning(conv2d, *given_arrays, **arguments), expected, rtol=1e-4, atol=1e-4
    )
    turned = [x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b][: len(given_arrays)]
    nchw = meaning(conv2d, *turned, **arguments, layout="NCHW")
    np.testing.assert_allclose(nchw.transpose(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_has_its_larger_half_at_the_end(kernel, stride, size, dilation):
    x, w = arrays((1, size, size + 1, 2), (kernel, kernel, 2, 3))
    pads = []
    for n in x.shape[1:3]:
        total = max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    y = meaning(conv2d, x, w, stride=stride, padding="same", dilation=dilation)
    expected = loops(x, w, None, (stride, stride), pads, (dilation, dilation), 1)
    assert y.shape == (1, -(-size // stride), -(-(size + 1) // stride), 3)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_valid_padding_is_none():
    x, w = arrays((1, 6, 7, 2), (3, 3, 2, 4))
    assert meaning(conv2d, x, w, padding="valid").shape == (1, 4, 5, 4)


def test_depthwise_has_an_equation_of_its_own_and_the_same_meaning():
    x, w = arrays((2, 6, 5, 4), (3, 3, 1, 4))
    node = conv2d(Input("x", x.shape), w, padding=1, groups=4)
    assert dict(node.statement.extents) == {"b": 2, "p": 6, "q": 5, "g": 4, "u": 3, "v": 3}
    expected = loops(x, w, None, (1, 1), [(1, 1), (1, 1)], (1, 1), 4)
    np.testing.assert_allclose(meaning(conv2d, x, w, padding=1, groups=4), expected, atol=1e-4)


def test_im2col_times_weights_is_the_convolution():
    x, w = arrays((2, 7, 6, 3), (3, 2, 3, 5))
    columns = meaning(im2col, x, kernel_size=(3, 2), dilation=(1, 2), padding=(1, 0), stride=2)
    y = meaning(conv2d, x, w, dilation=(1, 2), padding=(1, 0), stride=2)
    np.testing.assert_allclose(np.tensordot(columns, w, 3), y, atol=1e-4)


def test_ceil_mode_drops_a_last_window_that_starts_in_the_padding():
    (x,) = arrays((1, 9, 9, 1))
    assert meaning(avg_pool2d, x, kernel_size=4, stride=4, padding=2, ceil_mode=True).shape[1] == 3
    (x,) = arrays((1, 12, 12, 1))
    assert meaning(max_pool2d, x, kernel_size=1, stride=2, ceil_mode=True).shape[1] == 6
    for size, pooled in ((54, 27), (112, 56)):
        (x,) = arrays((1, size, 4, 1))
        y = meaning(max_pool2d, x, kernel_size=3, stride=2, ceil_mode=True)
        assert y.shape[1] == pooled


def test_average_pooling_divides_by_the_clamped_window():
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
    y = meaning(avg_pool2d, x, kernel_size=3, stride=2, padding=1, ceil_mode=True)
    expected = [[1.5556, 3.3333, 2], [6.3333, 11, 6], [4.5, 7.5, 4]]
    np.testing.assert_allclose(y[0, :, :, 0], expected, atol=1e-4)
    y = meaning(
        avg_pool2d,
        x,
        kernel_size=3,
        stride=2,
        padding=1,
        ceil_mode=True,
        count_include_pad=False,
    )
    expected = [[3.5, 5, 6], [9.5, 11, 12], [13.5, 15, 16]]
    np.testing.assert_allclose(y[0, :, :, 0], expected, atol=1e-4)
    y = meaning(avg_pool2d, x, kernel_size=2, divisor_override=1)
    np.testing.assert_allclose(y[0, :, :, 0], [[14, 22], [46, 54]], atol=1e-4)


def test_max_pooling_never_sees_its_padding():
    x = np.full((1, 3, 3, 1), -5, np.float32)
    assert (meaning(max_pool2d, x, kernel_size=3, stride=2, padding=1) == -5).all()


@ROUNDS
@given(st.data())
def test_max_pooling_is_the_loops(data):
    kernel, stride = data.draw(st.tuples(small, small)), data.draw(st.tuples(small, small))
    dilation = data.draw(st.tuples(small, small))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padding = [data.draw(st.integers(0, r // 2)) for r in reach]
    size = [
        max(1, r - 2 * a) + data.draw(st.integers(0, 5))
        for r, a in zip(reach, padding, strict=True)
    ]
    ceil = data.draw(st.booleans())
    (x,) = arrays((1, *size, 2))
    y = meaning(
        max_pool2d,
        x,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil,
    )
    shape = []
    for n, r, s, a in zip(size, reach, stride, padding, strict=True):
        count = (n + 2 * a - r + (s - 1 if ceil else 0)) // s + 1
        shape.append(count - 1 if (count - 1) * s >= n + a else count)
    assert y.shape == (1, *shape, 2)
    for p in range(shape[0]):
        for q in range(shape[1]):
            rows = [stride[0] * p + dilation[0] * u - padding[0] for u in range(kernel[0])]
            columns = [stride[1] * q + dilation[1] * v - padding[1] for v in range(kernel[1])]
            rows = [r for r in rows if 0 <= r < size[0]]
            columns = [c for c in columns if 0 <= c < size[1]]
            window = x[0][np.ix_(rows, columns)]
            assert (y[0, p, q] == window.max((0, 1), initial=-np.inf)).all()


@pytest.mark.parametrize(("size", "wanted"), [(14, 4), (7, 7), (6, 7), (8, 7), (5, 1), (6, 3)])
def test_adaptive_windows_run_from_floor_to_ceil(size, wanted):
    (x,) = arrays((1, size, size + 1, 2))
    y = meaning(adaptive_avg_pool2d, x, output_size=(wanted, None))
    assert y.shape == (1, wanted, size + 1, 2)
    for k in range(wanted):
        window = x[:, k * size // wanted : -(-(k + 1) * size // wanted)]
        np.testing.assert_allclose(y[:, k], window.mean(1), atol=1e-5)


def test_adaptive_windows_in_both_directions():
    (x,) = arrays((1, 5, 6, 2))
    y = meaning(adaptive_avg_pool2d, x, output_size=(2, 4))
    window = x[:, 2:5, 3:5].mean((1, 2))
    np.testing.assert_allclose(y[:, 1, 2], window, atol=1e-5)
    (z,) = arrays((2, 5, 7, 3))
    np.testing.assert_allclose(meaning(global_avg_pool2d, z), z.mean((1, 2)), atol=1e-5)


def test_functions_on_arrays_are_what_their_graphs_mean():
    x, w, b = arrays((2, 9, 8, 6), (3, 3, 2, 9), (9,))
    y = striate.conv2d(x, w, b, stride=2, padding=1, groups=3)
    expected = meaning(conv2d, x, w, b, stride=2, padding=1, groups=3)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    turned = striate.conv2d(
        x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b, 2, 1, 1, 3, layout="NCHW"
    )
    np.testing.assert_allclose(turned.transpose(0, 2, 3, 1), expected, atol=1e-5)
    y = striate.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
    expected = meaning(avg_pool2d, x, kernel_size=3, stride=2, padding=1, ceil_mode=True)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    y = striate.max_pool2d(x.astype(np.float64), 3, 2, 1)
    assert y.dtype == np.float32
    assert (y == meaning(max_pool2d, x, kernel_size=3, stride=2, padding=1)).all()
    np.testing.assert_allclose(
        striate.adaptive_avg_pool2d(x, (4, 3)),
        meaning(adaptive_avg_pool2d, x, output_size=(4, 3)),
        atol=1e-5,
    )


X = np.zeros((1, 8, 8, 4), np.float32)
W = np.zeros((3, 3, 4, 6), np.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: conv2d(X[0], W), r"input has 3 axes, \[8, 8, 4\]; expected 4: \[b,x,y,i\]"),
        (lambda: conv2d(X, W[0]), r"weight has 3 axes"),
        (lambda: conv2d(X, W[:, :, :3]), "has 4 features and weight .* takes 3 in each of 1 group"),
        (lambda: conv2d(X, W, groups=2), "takes 4 in each of 2 groups"),
        (lambda: conv2d(X, W[:, :, :2, :5], groups=2), "filters that the groups divide"),
        (lambda: conv2d(X, W, np.zeros(5, np.float32)), r"bias has shape \[5\]; expected \[6\]"),
        (lambda: conv2d(X, W, stride=0), "stride is 0; expected at least 1"),
        (lambda: conv2d(X, W, stride=(1, 2, 3)), "expected one integer or a pair"),
        (lambda: conv2d(X, W, padding=-1), "padding is -1"),
        (lambda: conv2d(X, W, padding="full"), "expected an integer, a pair, 'same' or 'valid'"),
        (lambda: conv2d(X, W, dilation=9), "no value of p fits"),
        (lambda: conv2d(X, W, layout="CHWN"), "expected 'NHWC'"),
        (lambda: conv2d(X, W, groups=0), "groups is 0"),
        (lambda: max_pool2d(X, 3, padding=2), "more than half of the window"),
        (lambda: max_pool2d(X, 9), "no value of p fits"),
        (lambda: avg_pool2d(X, 2, divisor_override=0), "divisor_override is 0"),
        (lambda: adaptive_avg_pool2d(X, 0), "output_size is 0"),
    ],
)
def test_what_does_not_fit_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: conv2d(X, W, stride=1.5), "stride is 1.5; expected an integer"),
        (lambda: conv2d(X, W, stride="2"), "stride is '2'"),
        (lambda: conv2d(X, W, groups=True), "groups is True"),
        (lambda: conv2d(X.astype(complex), W), "x has dtype complex128; expected float32"),
        (lambda: max_pool2d(X.astype(object), 2), "dtype object"),
    ],
)
def test_what_has_the_wrong_type_is_said(call, says):
    with pytest.raises(TypeError, match=says):
        call()
