"""Winograd's inner product: pointwise products with half the multiplications of their pairs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, operands_for, run, statement

from striate.compiler.layout import Layout
from striate.compiler.schedules import inner_product
from striate.compiler.target import Target
from striate.notation import interpret

features = st.sampled_from([1, 3, 8, 15, 16, 17, 33, 48, 130])
terms = st.sampled_from([1, 2, 3, 5, 6, 15, 16, 17, 19, 32, 47, 100])
caches = st.sampled_from([1 << 10, 1 << 14, 1 << 20])
OUTER = ("{}", "relu({} + A[j])", "{} + A[j] + R[b,p,q,j]")
DATA = (
    "x[b,p,q,c]",
    "x[b,2*p,3*q,c]",
    "relu(x[b,p,q,c] * B[c] + t[c])",
    "relu(sum[u,v](D[u,v,c] * x[b,p+u-1,q+v-1,c]) + B[c])",
    "sum[u,v](D[u,v,c] * x[b,2*p+u,2*q+v,c])",
)


def target_of(name: str, l2: int = 1 << 20) -> Target:
    return replace(Target.named(name), l2=l2, adders=True)


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_products(target: str, data: st.DataObject) -> None:
    draw = data.draw
    b, c, j = draw(st.integers(1, 3)), draw(terms), draw(features)
    p, q = draw(st.integers(4, 9)), draw(st.sampled_from([8, 14, 15, 29]))
    inner = draw(st.sampled_from(DATA))
    text = draw(st.sampled_from(OUTER)).format(f"sum[c](W[c,j] * {inner})")
    inside = {
        "x[b,2*p,3": (2 * p - 1, 3 * q - 2),
        "x[b,2*p+u": (2 * p + 1, 2 * q + 1),
    }
    height, width = next((s for key, s in inside.items() if key in inner), (p, q))
    shapes = {
        "x": (b, height, width, c),
        "D": (3, 3, c),
        "W": (c, j),
        "B": (c,),
        "t": (c,),
        "A": (j,),
        "R": (b, p, q, j),
    }
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    stated = statement(f"y[b,p,q,j] = {text}", used, p=p, q=q)
    layouts = {"y": Layout.padded((b, p, q, j), (1, 0, 2, 1))} if draw(st.booleans()) else {}
    check(inner_product, stated, target_of(target, draw(caches)), layouts, rounding=4)


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_windows_and_shuffles(target: str, data: st.DataObject) -> None:
    draw = data.draw
    b, c, j = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 16, 17, 29])), draw(features)
    p, q = draw(st.integers(1, 9)), draw(st.sampled_from([1, 7, 14, 15]))
    a, s, g = draw(st.integers(0, 1)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    h, w = max(1, s * (p - 1) + 3 - 2 * a), max(1, s * (q - 1) + 2 - 2 * a)
    p, q = (h + 2 * a - 3) // s + 1, (w + 2 * a - 2) // s + 1
    window = f"x[b,{s}*p+u-{a},{s}*q+v-{a},c]"
    shuffle = f"sum[g,c](W[{g}*c+g,j] * x[b,{s}*p+2,{s}*q+1,{c}*g+c])"
    shapes = {"x": (b, h, w, c), "W": (3, 2, c, j), "A": (j,), "R": (b, p, q, j)}
    total = f"sum[u,v,c](W[u,v,c,j] * {window})"
    if a == 0 and draw(st.booleans()):
        total, shapes["x"], shapes["W"] = shuffle, (b, h, w, g * c), (g * c, j)
    text = draw(st.sampled_from(OUTER)).format(total)
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    sizes = {"g": g, "c": c} if "sum[g" in text else {}
    stated = statement(f"y[b,p,q,j] = {text}", used, p=p, q=q, **sizes)
    check(inner_product, stated, target_of(target, draw(caches)), rounding=4)


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_products_within_a_depthwise_convolution(target: str, data: st.DataObject) -> None:
    draw = data.draw
    b, c, j = draw(st.integers(1, 2)), draw(terms), draw(features)
    u, v, s, a = (draw(st.integers(*ends)) for ends in ((1, 3), (1, 5), (1, 2), (0, 2)))
    p, q = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 7, 14, 15]))
    h, w = max(1, s * (p - 1) + u - 2 * a), max(1, s * (q - 1) + v - 2 * a)
    p, q = (h + 2 * a - u) // s + 1, (w + 2 * a - v) // s + 1
    pixel = f"b,{s}*p+u-{a},{s}*q+v-{a}"
    inner = draw(st.sampled_from(("{}", "relu({} + A[j])", "clip({} + A[j], 0, 6)")))
    inner = inner.format(f"sum[c](W[c,j] * x[{pixel},c])")
    text = f"relu(sum[u,v](D[u,v,j] * where(1, {inner}, x[{pixel},0])) + B[j])"
    shapes = {"x": (b, h, w, c), "D": (u, v, j), "W": (c, j), "A": (j,), "B": (j,)}
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    stated = statement(f"y[b,p,q,j] = {text}", used, p=p, q=q)
    layouts = {"x": Layout.padded((b, h, w, c), (2, 0, 1, 1))} if draw(st.booleans()) else {}
    check(inner_product, stated, target_of(target), layouts, rounding=4)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("data", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("weights", [1e-5, 1e3])
def test_scales_keep_the_smaller_factor(target: str, data: float, weights: float) -> None:
    stated = statement("y[p,j] = sum[c](W[c,j] * x[p,c])", {"W": (200, 20), "x": (40, 200)})
    operands = operands_for(stated)
    operands["x"] *= np.geomspace(1, 1e-3, 40, dtype=np.float32)[:, None] * np.float32(data)
    operands["W"] *= np.geomspace(1, 1e3, 20, dtype=np.float32) * np.float32(weights)
    got = run(inner_product, stated, operands, target_of(target))
    exact = operands["x"].astype(np.float64) @ operands["W"].astype(np.float64)
    pixels = np.linalg.norm(operands["x"].astype(np.float64), axis=1)
    columns = np.linalg.norm(operands["W"].astype(np.float64), axis=0)
    assert (np.abs(got - exact) / np.outer(pixels, columns)).max() < 4e-7


@pytest.mark.parametrize("target", RUNNABLE)
def test_zeros_and_values_that_are_not_numbers(target: str) -> None:
    stated = statement("y[p,j] = sum[c](W[c,j] * x[p,c])", {"W": (20, 3), "x": (33, 20)})
    operands = operands_for(stated)
    operands["x"][1], operands["x"][2, 4], operands["W"][:, 1] = 0, np.nan, 0
    got = run(inner_product, stated, operands, target_of(target))
    np.testing.assert_array_equal(got[1], 0)
    np.testing.assert_array_equal(np.delete(got, 2, 0)[:, 1], 0)
    assert np.isnan(got[2]).all()
    expected = interpret(stated, operands)
    np.testing.assert_allclose(got[3:], expected[3:], rtol=2e-5, atol=1e-5)
