"""A depthwise convolution over a pointwise product whose planes stay in scratch."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, emit, statement

from striate.compiler.layout import Layout
from striate.compiler.schedules import planes
from striate.compiler.target import Target

features = st.sampled_from([1, 3, 8, 15, 16, 17, 24, 33, 48, 72, 144])
INNER = ("{}", "relu({} + A[c])", "clip({} + A[c], 0, 6)")
OUTER = ("{}", "relu({} + B[c])")


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_depthwise_over_a_product(target: str, data: st.DataObject) -> None:
    draw = data.draw
    b, i, c = draw(st.integers(1, 2)), draw(features), draw(features)
    u, v, s = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 2))
    a = draw(st.integers(0, 2))
    p, q = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 7, 14, 15]))
    h, w = max(1, s * (p - 1) + u - 2 * a), max(1, s * (q - 1) + v - 2 * a)
    p, q = (h + 2 * a - u) // s + 1, (w + 2 * a - v) // s + 1
    pixel = f"b,{s}*p+u-{a},{s}*q+v-{a}"
    inner = draw(st.sampled_from(INNER)).format(f"sum[i](W[i,c] * x[{pixel},i])")
    total = f"sum[u,v](D[u,v,c] * where(1, {inner}, x[{pixel},0]))"
    text = draw(st.sampled_from(OUTER)).format(total)
    shapes = {"x": (b, h, w, i), "D": (u, v, c), "W": (i, c), "A": (c,), "B": (c,)}
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    stated = statement(f"y[b,p,q,c] = {text}", used, p=p, q=q)
    layouts = {}
    if draw(st.booleans()):
        layouts["y"] = Layout.padded((b, p, q, c), (1, 0, 2, 1))
    if draw(st.booleans()):
        layouts["x"] = Layout.padded((b, h, w, i), (2, 0, 1, 1))
    # The less cache there is, the more bands.
    l2 = draw(st.sampled_from([512 << 10, 64 << 10, 16 << 10]))
    check(planes, stated, replace(Target.named(target), halved=draw(st.booleans()), l2=l2), layouts)


@pytest.mark.parametrize("stride", [1, 2])
def test_large_planes_are_cut_into_bands(stride: int) -> None:
    """As many as keep a band in the cache; on two cores, so many that both end together."""
    pixel = f"b,{stride}*p+u-1,{stride}*q+v-1"
    text = f"sum[u,v](D[u,v,c] * where(1, sum[i](W[i,c] * x[{pixel},i]), x[{pixel},0]))"
    size = 28 * stride
    shapes = {"x": (1, size, size, 4), "D": (3, 3, 24), "W": (4, 24)}
    stated = statement(f"y[b,p,q,c] = {text}", shapes, p=28, q=28)
    target = replace(Target.named("generic"), cores=2)
    found = {}
    for l2 in (4 << 20, 64 << 10):
        small = replace(target, l2=l2)
        check(planes, stated, small)
        plan = emit(planes, stated, small)[1]
        bands = re.search(r"by (\d+) bands", plan.plan)
        assert bands is not None
        assert plan.scratch_bytes <= l2 // 4
        found[l2] = int(bands[1])
        assert planes.pays(stated, small)
    assert found[4 << 20] < found[64 << 10]
