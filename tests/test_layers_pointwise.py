"""Activations, normalisation and everything that only moves values."""

import numpy as np
import pytest
from test_layers_windows import arrays, meaning

import striate
from striate import layers
from striate.network.graph import Computed, Input


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (2, 3, 4, 5), (1, 2, 1, 3, 5)])
def test_activations_take_any_shape(shape):
    (x,) = arrays(shape)
    x *= 10
    assert (meaning(layers.relu, x) == np.maximum(x, 0)).all()
    assert (meaning(layers.relu6, x) == np.clip(x, 0, 6)).all()
    np.testing.assert_allclose(meaning(layers.sigmoid, x), 1 / (1 + np.exp(-x)), rtol=1e-5)
    assert (meaning(layers.add, x, x) == x + x).all()


@pytest.mark.parametrize(("shape", "dim"), [((7,), 0), ((3, 7), -1), ((3, 7), 0), ((2, 3, 4), 1)])
def test_softmax_sums_to_one_and_does_not_overflow(shape, dim):
    (x,) = arrays(shape)
    x = x * 50 + 200
    y = meaning(layers.softmax, x, dim=dim)
    shifted = np.exp(x - x.max(dim, keepdims=True))
    np.testing.assert_allclose(y, shifted / shifted.sum(dim, keepdims=True), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(striate.softmax(x, dim), y, rtol=1e-4, atol=1e-6)


def test_linear_takes_features_last():
    x, w, b = arrays((2, 3, 5), (5, 4), (4,))
    np.testing.assert_allclose(meaning(layers.linear, x, w, b), x @ w + b, atol=1e-5)
    np.testing.assert_allclose(striate.linear(x[0], w.T, b, layout="NCHW"), x[0] @ w + b, atol=1e-5)


def test_batch_norm_adds_epsilon_to_the_variance_under_the_root():
    x, mean, weight, bias = arrays((2, 3, 2, 4), (4,), (4,), (4,))
    variance = np.array([0, 1e-5, 1, 4], np.float32)
    y = meaning(layers.batch_norm, x, mean, variance, weight, bias, eps=1e-3)
    expected = (x - mean) / np.sqrt(variance + np.float32(1e-3)) * weight + bias
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    turned = meaning(
        layers.batch_norm, x.transpose(0, 3, 1, 2), mean, variance, eps=1e-3, layout="NCHW"
    )
    plain = (x - mean) / np.sqrt(variance + np.float32(1e-3))
    np.testing.assert_allclose(turned.transpose(0, 2, 3, 1), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_local_response_norm_looks_both_ways(size):
    (x,) = arrays((1, 2, 2, 7))
    y = meaning(layers.local_response_norm, x, size=size, alpha=0.5, beta=0.75, k=2.0)
    for i in range(7):
        near = x[..., max(0, i - size // 2) : i + (size - 1) // 2 + 1]
        scale = (2 + 0.5 / size * (near**2).sum(-1)) ** 0.75
        np.testing.assert_allclose(y[..., i], x[..., i] / scale, rtol=1e-4)


def test_channel_shuffle_deals_the_groups_out():
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)
    y = meaning(layers.channel_shuffle, x, groups=2)
    assert y.ravel().tolist() == [0, 3, 1, 4, 2, 5]
    y = meaning(layers.channel_shuffle, x, groups=3)
    assert y.ravel().tolist() == [0, 2, 4, 1, 3, 5]
    expected = x.reshape(1, 1, 1, 2, 3).swapaxes(3, 4).reshape(x.shape)
    assert (striate.channel_shuffle(x, 2) == expected).all()


def test_flatten_goes_feature_by_feature():
    (x,) = arrays((2, 3, 4, 5))
    expected = x.transpose(0, 3, 1, 2).reshape(2, -1)
    assert (meaning(layers.flatten, x) == expected).all()
    assert (meaning(layers.flatten, x.transpose(0, 3, 1, 2), layout="NCHW") == expected).all()
    assert (meaning(layers.flatten, x[0]) == x[0].reshape(3, -1)).all()
    assert layers.flatten(expected) is expected


def test_concatenate_any_axis():
    x, y, z = arrays((2, 3, 1, 4), (2, 3, 1, 2), (2, 1, 1, 4))
    assert (striate.concatenate([x, y]) == np.concatenate([x, y], -1)).all()
    assert (striate.concatenate([x, z], 1) == np.concatenate([x, z], 1)).all()
    with pytest.raises(ValueError, match="differ in more than axis 3"):
        striate.concatenate([x, z])
    with pytest.raises(ValueError, match="at least one"):
        striate.concatenate([])
    with pytest.raises(ValueError, match="axis is 4"):
        striate.concatenate([x, y], 4)


def test_take_features_is_a_slice():
    (x,) = arrays((2, 3, 4, 6))
    assert (meaning(layers.take_features, x, start=2, stop=5) == x[..., 2:5]).all()
    with pytest.raises(ValueError, match="does not lie within the 6 features"):
        layers.take_features(x, 4, 7)


def test_dropout_answers_with_its_input():
    node = Input("x", (1, 2))
    assert layers.dropout(node) is node
    with pytest.raises(ValueError, match="probability"):
        layers.dropout(node, 1.5)


def test_shapes_that_differ_are_said():
    x, y = arrays((2, 3), (2, 4))
    with pytest.raises(ValueError, match=r"add: shapes \[2, 3\] and \[2, 4\] differ"):
        layers.add(x, y)
    with pytest.raises(ValueError, match=r"linear: input \[2, 3\]"):
        layers.linear(x, np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match=r"running_mean has shape \[4\]; expected \[3\]"):
        layers.batch_norm(x, y[0], y[0])
    with pytest.raises(ValueError, match="2 groups do not divide 3 features"):
        layers.channel_shuffle(np.zeros((1, 1, 1, 3), np.float32), 2)


def test_a_symbolic_operand_draws_a_node_and_arrays_become_parameters():
    (w,) = arrays((3, 3, 4, 5))
    node = layers.conv2d(Input("image", (1, 8, 8, 4)), w)
    assert isinstance(node, Computed)
    names = dict(node.operands)
    assert names["W"].array is w
    assert node.shape == (1, 6, 6, 5)


def test_an_equation_of_ones_own():
    blur = striate.equation("y[b,p,q,i] = sum[u,v](k[u,v] * x[b, p+u-1, q+v-1, i])")
    x, k = arrays((2, 5, 6, 3), (3, 3))
    y = blur(k=k, x=x)
    np.testing.assert_allclose(y, blur.interpret(k=k, x=x), atol=1e-5)
    np.testing.assert_allclose(y[0, 2, 2], np.tensordot(k, x[0, 1:4, 1:4], 2), atol=1e-5)
    assert "sum[u, v]" in str(blur) or "sum[u,v]" in str(blur)
    assert repr(blur).startswith("equation(")
    local = striate.equation("y[b,p,j] = sum[u,i](W[p,u,i,j] * x[b, s*p+u, i])", s=2)
    x, w = arrays((2, 9, 3), (4, 2, 3, 5))
    expected = [np.einsum("bui,uij->bj", x[:, 2 * p : 2 * p + 2], w[p]) for p in range(4)]
    np.testing.assert_allclose(local(W=w, x=x), np.stack(expected, 1), atol=1e-5)
    correlate = striate.equation("c[b,d,q] = sum[i](f[b,q,i] * g[b, q+d, i])")
    f, g = arrays((1, 6, 4), (1, 6, 4))
    assert correlate(f=f, g=g, sizes={"d": 3}).shape == (1, 3, 6)
    assert isinstance(blur(k=k, x=Input("x", (1, 4, 4, 1))), Computed)


def test_an_equation_says_what_is_wrong():
    with pytest.raises(ValueError, match="unbound"):
        striate.equation("y[p] = x[p] * gain")
    double = striate.equation("y[p] = x[p] * gain", gain=2)
    with pytest.raises(TypeError, match="x is str; expected a NumPy array"):
        double(x="seven")
    with pytest.raises(TypeError, match="dtype complex"):
        double(x=np.ones(2, complex))
    with pytest.raises(ValueError, match="operand x is missing"):
        double(z=np.ones(2))
