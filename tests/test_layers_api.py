"""What layers are called and take: the issue's own words, and a module for each function."""

import inspect

import numpy as np
import pytest
from test_layers_windows import arrays

import striate
from striate import layers

IMAGE = (2, 7, 8, 6)
VECTOR = (3, 6)


def test_conv2d_takes_exactly_these():
    parameters = inspect.signature(striate.conv2d).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional] == [
        ("input", inspect.Parameter.empty),
        ("weight", inspect.Parameter.empty),
        ("bias", None),
        ("stride", 1),
        ("padding", 0),
        ("dilation", 1),
        ("groups", 1),
    ]
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == ["layout"]


@pytest.mark.parametrize("name", sorted(set(striate.__all__) & set(layers.__all__)))
def test_layers_of_the_package_are_those_of_the_folder(name):
    assert getattr(striate, name) is getattr(layers, name)


# A function, its arguments beside the input, and the module that holds the same.
PLAIN = [
    (layers.max_pool2d, (3, 2, 1, 1, True), layers.MaxPool2d),
    (layers.max_pool2d, (2, 1, 0, (2, 3)), layers.MaxPool2d),
    (layers.avg_pool2d, (3, 2, 1, True, False), layers.AvgPool2d),
    (layers.avg_pool2d, ((2, 3), None, (0, 1), False, True, 5), layers.AvgPool2d),
    (layers.adaptive_avg_pool2d, ((3, None),), layers.AdaptiveAvgPool2d),
    (layers.global_avg_pool2d, (), layers.GlobalAvgPool2d),
    (layers.local_response_norm, (3, 0.1, 0.5, 2.0), layers.LocalResponseNorm),
    (layers.relu, (), layers.ReLU),
    (layers.relu6, (), layers.ReLU6),
    (layers.sigmoid, (), layers.Sigmoid),
    (layers.softmax, (1,), layers.Softmax),
    (layers.dropout, (0.3,), layers.Dropout),
    (layers.channel_shuffle, (3,), layers.ChannelShuffle),
    (layers.flatten, (), layers.Flatten),
    (layers.im2col, ((3, 2), (1, 2), (1, 0), 2), layers.Im2col),
    (layers.interpolate, ((5, 13), None, "bilinear", True), layers.Upsample),
    (layers.interpolate, (None, 1.5), layers.Upsample),
]


@pytest.mark.parametrize(("function", "arguments", "module"), PLAIN)
def test_a_module_is_its_function(function, arguments, module):
    (x,) = arrays(IMAGE)
    np.testing.assert_array_equal(module(*arguments)(x), function(x, *arguments))
    names = list(inspect.signature(function).parameters)[1 : len(arguments) + 1]
    assert names == list(inspect.signature(module).parameters)[: len(arguments)]


def test_dilation_of_average_pooling():
    (x,) = arrays(IMAGE)
    found = layers.AvgPool2d(2, 1, dilation=(2, 3))(x)
    expected = (x[:, :-2, :-3] + x[:, 2:, :-3] + x[:, :-2, 3:] + x[:, 2:, 3:]) / 4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_modules_with_parameters_are_their_functions():
    (x,) = arrays(IMAGE)
    module = layers.Conv2d(6, 8, (3, 2), (2, 1), "valid", (1, 2), 2)
    expected = striate.conv2d(x, module.weight, module.bias, (2, 1), "valid", (1, 2), 2)
    np.testing.assert_allclose(module(x), expected, atol=1e-6)
    norm = layers.BatchNorm2d(6, eps=1e-3)
    norm.running_mean, norm.running_var = np.arange(6.0), np.arange(1.0, 7.0)
    norm.weight, norm.bias = np.arange(2.0, 8.0), np.arange(6.0)
    arguments = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    np.testing.assert_allclose(norm(x), striate.batch_norm(x, *arguments, eps=1e-3), atol=1e-5)
    assert (layers.BatchNorm2d(1).eps, layers.BatchNorm2d(1).momentum) == (1e-5, 0.1)
    (v,) = arrays(VECTOR)
    linear = layers.Linear(6, 4)
    expected = striate.linear(v, linear.weight, linear.bias)
    np.testing.assert_allclose(linear(v), expected, atol=1e-6)


def test_concatenate_joins_branches():
    (x,) = arrays(IMAGE)
    inner = layers.Sequential(layers.Conv2d(6, 4, 1), layers.ReLU())
    module = layers.Concatenate(inner, layers.MaxPool2d(3, 1, 1), layers.Identity())
    expected = np.concatenate([inner(x), striate.max_pool2d(x, 3, 1, 1), x], -1)
    np.testing.assert_allclose(module(x), expected, atol=1e-6)
    assert list(module.state_shapes()) == ["0.0.weight", "0.0.bias"]
    down = layers.Concatenate(layers.Identity(), layers.ReLU(), axis=1)
    np.testing.assert_array_equal(down(x), np.concatenate([x, np.maximum(x, 0)], 1))
    with pytest.raises(ValueError, match="no branches"):
        layers.Concatenate()


# Functions that read an image, with what they take beside it.
IMAGES = [
    (layers.max_pool2d, (3, 2, 1)),
    (layers.avg_pool2d, (3, 2, 1, True)),
    (layers.adaptive_avg_pool2d, ((3, 5),)),
    (layers.local_response_norm, (3,)),
    (layers.channel_shuffle, (2,)),
    (layers.interpolate, ((5, 13), None, "bilinear")),
    (layers.batch_norm, (np.arange(6.0), np.arange(1.0, 7.0))),
]


@pytest.mark.parametrize(("function", "arguments"), IMAGES)
def test_features_may_come_first(function, arguments):
    (x,) = arrays(IMAGE)
    found = function(x.transpose(0, 3, 1, 2), *arguments, layout="NCHW")
    expected = function(x, *arguments).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_features_may_come_first_where_the_result_is_no_image():
    (x,) = arrays(IMAGE)
    turned = x.transpose(0, 3, 1, 2)
    found = striate.im2col(turned, (3, 2), padding=1, layout="NCHW")
    expected = striate.im2col(x, (3, 2), padding=1).transpose(0, 5, 3, 4, 1, 2)
    np.testing.assert_array_equal(found, expected)
    assert (striate.flatten(turned, layout="NCHW") == turned.reshape(2, -1)).all()
    found = striate.global_avg_pool2d(turned, layout="NCHW")
    np.testing.assert_allclose(found, x.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_convolution_with_features_first(groups, padding):
    x, w, b = arrays(IMAGE, (3, 3, 6 // groups, 12), (12,))
    found = striate.conv2d(
        x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b, 1, padding, 1, groups, layout="NCHW"
    )
    expected = striate.conv2d(x, w, b, 1, padding, 1, groups).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
