"""Resizing: against its definition in float64, at every size, by torch's rules."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_layers_windows import arrays, meaning

import striate
from striate import layers
from striate.network.graph import Computed, Input
from striate.notation import adjoint, interpret

ROUNDS = settings(max_examples=60, deadline=None)
SIZES = st.integers(1, 12)


def centres(places, outputs, ratio, align_corners):
    """Where outputs lie among the pixels of an axis, not yet kept within it."""
    p = [Fraction(number) for number in range(outputs)]
    if align_corners:
        return [n * Fraction(places - 1, max(outputs - 1, 1)) for n in p]
    return [(n + Fraction(1, 2)) * ratio - Fraction(1, 2) for n in p]


def matrix(places, outputs, ratio, align_corners):
    """The interpolation matrix `[outputs, places]` of one axis."""
    result = np.zeros((outputs, places))
    for row, exact in zip(result, centres(places, outputs, ratio, align_corners), strict=True):
        centre = min(max(exact, Fraction(0)), Fraction(places - 1))
        first = math.floor(centre)
        row[first] += float(1 - (centre - first))
        row[min(first + 1, places - 1)] += float(centre - first)
    return result


def bilinear(x, size, ratios=None, align_corners=False):
    ratios = ratios or [Fraction(n, m) for n, m in zip(x.shape[1:3], size, strict=True)]
    rows, columns = (
        matrix(places, outputs, ratio, align_corners)
        for places, outputs, ratio in zip(x.shape[1:3], size, ratios, strict=True)
    )
    return np.einsum("ph,qw,bhwi->bpqi", rows, columns, x.astype(np.float64))


def nearest(x, size):
    rows, columns = (np.arange(m) * n // m for n, m in zip(x.shape[1:3], size, strict=True))
    return x[:, rows][:, :, columns]


@ROUNDS
@given(image=st.tuples(SIZES, SIZES), size=st.tuples(SIZES, SIZES), align=st.booleans())
@example(image=(1, 1), size=(1, 1), align=True)
@example(image=(1, 7), size=(5, 1), align=True)
@example(image=(9, 10), size=(3, 20), align=False)
def test_any_size(image, size, align):
    (x,) = arrays((2, *image, 3))
    found = meaning(layers.interpolate, x, size=size, mode="bilinear", align_corners=align)
    np.testing.assert_allclose(found, bilinear(x, size, None, align), atol=1e-5)
    assert (meaning(layers.interpolate, x, size=size) == nearest(x, size)).all()


@pytest.mark.parametrize("size", [(1, 1), (33, 20), (17, 40), (8, 129), (66, 80)])
@pytest.mark.parametrize("features", [1, 3, 17])
def test_compiled(size, features):
    (x,) = arrays((1, 33, 40, features))
    for align in (False, True):
        found = striate.interpolate(x, size, mode="bilinear", align_corners=align)
        np.testing.assert_allclose(found, bilinear(x, size, None, align), atol=1e-5)
    assert (striate.interpolate(x, size) == nearest(x, size)).all()
    turned = striate.interpolate(x.transpose(0, 3, 1, 2), size, mode="bilinear", layout="NCHW")
    np.testing.assert_allclose(turned.transpose(0, 2, 3, 1), bilinear(x, size), atol=1e-5)


@ROUNDS
@given(
    image=st.tuples(SIZES, SIZES),
    factor=st.sampled_from([1, 2, 3, 0.5, 1.5, 1.1, 0.7, 2.25, 1 / 3, math.pi]),
)
def test_a_scale_factor_stands_for_itself_where_the_size_is_rounded(image, factor):
    (x,) = arrays((1, *image, 2))
    size = tuple(math.floor(n * factor) for n in image)
    if 0 in size:
        with pytest.raises(ValueError, match="leaves nothing of"):
            layers.interpolate(x, scale_factor=factor)
        return
    step = 1 / Fraction(factor)
    found = meaning(layers.interpolate, x, scale_factor=factor, mode="bilinear")
    np.testing.assert_allclose(found, bilinear(x, size, (step, step)), atol=1e-5)
    # As floats see it, 10 * 1.1 is a little more than 11: the pixel must not depend on that.
    step = 1 / Fraction(factor).limit_denominator(1000)
    rows, columns = ([min(math.floor(p * step), n - 1) for p in range(m)]
                     for n, m in zip(image, size, strict=True))  # fmt: skip
    found = meaning(layers.interpolate, x, scale_factor=factor)
    assert (found == x[:, rows][:, :, columns]).all()


def test_rows_and_columns_by_their_own_factors():
    (x,) = arrays((1, 4, 6, 1))
    assert layers.interpolate(Input("x", x.shape), scale_factor=(2.5, 0.5)).shape == (1, 10, 3, 1)
    found = striate.interpolate(x, scale_factor=(2, 0.5))
    assert (found == x[:, [0, 0, 1, 1, 2, 2, 3, 3]][:, :, [0, 2, 4]]).all()


def test_no_factor_reads_past_the_last_pixel():
    # Beside the last two no fraction is near enough.
    for places in (1, 2, 7, 1000, 10000):
        for factor in (0.9999999, 1.0000001, 1000.5, 12345.678, 1 / 9000, 1 + 1 / 8193):
            if places * factor < 1 or places * factor > 2e4:
                continue
            ones = Input("x", (1, places, 1, 1))
            for mode in ("nearest", "bilinear"):
                node = layers.interpolate(ones, scale_factor=(factor, 1), mode=mode)
                read = dict(node.statement.extents)["p"] - 1
                operands = {"x": np.ones((1, places, 1, 1), np.float32)}
                operands |= {n: o.array for n, o in node.operands if n != "x"}
                assert interpret(node.statement, operands)[0, read, 0, 0] == 1


def test_values_by_torchs_rules():
    x = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 2, 2, 1)
    y = meaning(layers.interpolate, x, scale_factor=2, mode="bilinear")
    expected = [
        [1, 1.25, 1.75, 2],
        [1.5, 1.75, 2.25, 2.5],
        [2.5, 2.75, 3.25, 3.5],
        [3, 3.25, 3.75, 4],
    ]
    np.testing.assert_allclose(y[0, :, :, 0], expected, atol=1e-6)
    y = meaning(layers.interpolate, x, scale_factor=2, mode="bilinear", align_corners=True)
    thirds = np.arange(4) / 3
    expected = 1 + thirds + 2 * thirds[:, None]
    np.testing.assert_allclose(y[0, :, :, 0], expected, atol=1e-6)


def test_a_constant_image_stays_constant():
    x = np.full((1, 5, 9, 2), 3, np.float32)
    for size in ((7, 4), (5, 9), (1, 23)):
        for mode in ("nearest", "bilinear"):
            np.testing.assert_allclose(striate.interpolate(x, size, mode=mode), 3, rtol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("image", "size"), [((5, 6), (11, 4)), ((4, 4), (8, 8)), ((7, 9), (3, 20))]
)
def test_the_gradient_is_the_transpose(mode, image, size):
    x, cotangent = arrays((1, *image, 2), (1, *size, 2))
    node = layers.interpolate(Input("x", x.shape), size, mode=mode)
    assert isinstance(node, Computed)
    operands = {"x": x} | {name: o.array for name, o in node.operands if name != "x"}
    forward = interpret(node.statement, operands)
    back = interpret(adjoint(node.statement, "x"), operands | {"d_y": cotangent})
    assert back.shape == x.shape
    np.testing.assert_allclose((forward * cotangent).sum(), (back * x).sum(), rtol=1e-4)


def test_upsample_is_interpolate():
    (x,) = arrays((1, 4, 5, 3))
    for arguments in (
        {"size": 7},
        {"scale_factor": 1.5, "mode": "bilinear", "align_corners": True},
    ):
        module = layers.Upsample(**arguments)
        assert (module(x) == striate.interpolate(x, **arguments)).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "expected either size or scale_factor"),
        ({"size": 2, "scale_factor": 2}, "expected either size or scale_factor"),
        ({"size": 2, "mode": "cubic"}, "expected 'nearest' or 'bilinear'"),
        ({"size": 2, "align_corners": True}, "align_corners is for mode 'bilinear'"),
        ({"size": 0}, "size is 0"),
        ({"size": (2, 3, 4)}, "expected one integer or a pair"),
        ({"scale_factor": 0}, "scale_factor is 0; expected a number above 0"),
        ({"scale_factor": -1.5}, r"scale_factor is -1\.5"),
        ({"scale_factor": math.nan}, "scale_factor is nan"),
        ({"scale_factor": math.inf}, "scale_factor is inf"),
        ({"scale_factor": (1, 2, 3)}, r"scale_factor is \(1, 2, 3\); expected a number or a pair"),
        ({"scale_factor": 0.4}, r"0\.4 leaves nothing of 2 pixels; expected at least 0\.5"),
    ],
)
def test_what_does_not_fit_is_said(arguments, says):
    with pytest.raises(ValueError, match=says):
        layers.interpolate(np.zeros((1, 2, 2, 1), np.float32), **arguments)


@pytest.mark.parametrize(
    "arguments", [{"size": 1.5}, {"scale_factor": "2"}, {"scale_factor": True}]
)
def test_what_has_the_wrong_type_is_said(arguments):
    with pytest.raises(TypeError, match=r"expected an? (integer|number)"):
        layers.interpolate(np.zeros((1, 2, 2, 1), np.float32), **arguments)
