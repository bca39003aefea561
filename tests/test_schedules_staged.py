"""Nested equations: a product over a layer that is computed into scratch."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, statement

from striate.compiler.layout import Layout
from striate.compiler.schedules import staged
from striate.compiler.target import Target

features = st.sampled_from([1, 3, 8, 15, 16, 17, 33, 48])
caches = st.sampled_from([1 << 10, 1 << 14, 1 << 20])
INNER = ("{}", "relu({} + B[c])", "clip({} + B[c], 0, 6)")
OUTER = ("{}", "relu({} + A[j])", "{} + A[j] + R[b,p,q,j]")


def target_of(name: str, l2: int, halved: bool) -> Target:
    return replace(Target.named(name), l2=l2, halved=halved)


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_depthwise(target: str, data: st.DataObject) -> None:
    draw = data.draw
    b, c, j = draw(st.integers(1, 2)), draw(features), draw(features)
    u, v, s = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 2))
    a = draw(st.integers(0, 2))
    p, q = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 7, 14, 15, 29]))
    h, w = max(1, s * (p - 1) + u - 2 * a), max(1, s * (q - 1) + v - 2 * a)
    p, q = (h + 2 * a - u) // s + 1, (w + 2 * a - v) // s + 1
    inner = draw(st.sampled_from(INNER)).format(
        f"sum[u,v](D[u,v,c] * x[b,{s}*p+u-{a},{s}*q+v-{a},c])"
    )
    text = draw(st.sampled_from(OUTER)).format(f"sum[c](W[c,j] * {inner})")
    output = (b, p, q, j)
    shapes = {
        "x": (b, h, w, c),
        "D": (u, v, c),
        "W": (c, j),
        "B": (c,),
        "A": (j,),
        "R": output,
    }
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    stated = statement(f"y[b,p,q,j] = {text}", used, p=p, q=q)
    layouts = {}
    if draw(st.booleans()):
        layouts["y"] = Layout.padded(output, (1, 0, 2, 1))
    check(staged, stated, target_of(target, draw(caches), draw(st.booleans())), layouts)


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_element_wise(target: str, data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 30))
    c, j = draw(features), draw(features)
    inner = draw(
        st.sampled_from(
            (
                "relu(x[b,p,q,c] * B[c] + t[c])",
                "(x[b,p,q,c] + z[b,p,q,c] * g[b,p,q])",
                "clip(x[b,p,q,c] * f[()], 0, 1)",
                "sigmoid(x[b,p,q,c])",
                "(x[b,p,q,c] * n[b,c])",
            )
        )
    )
    text = draw(st.sampled_from(OUTER)).format(f"sum[c](W[c,j] * {inner})")
    shapes = {
        "x": (*shape, c),
        "z": (*shape, c),
        "g": shape,
        "n": (shape[0], c),
        "f": (),
        "W": (c, j),
        "B": (c,),
        "t": (c,),
        "A": (j,),
        "R": (*shape, j),
    }
    used = {k: v for k, v in shapes.items() if f"{k}[" in text}
    stated = statement(f"y[b,p,q,j] = {text}", used)
    layouts = {}
    if draw(st.booleans()):
        layouts["y"] = Layout.padded((*shape, j), (1, 0, 2, 1))
    if draw(st.booleans()):
        layouts["x"] = Layout.padded((*shape, c), (2, 0, 1, 1))
    check(staged, stated, target_of(target, draw(caches), draw(st.booleans())), layouts)
