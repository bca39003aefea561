"""The pooling schedule computes what the interpreter says, and says no where it doesn't fit."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, code, emit, operands_for, run, sliced, statement

from striate.compiler.codegen import assembly
from striate.compiler.layout import Layout
from striate.compiler.schedules import chunks, window
from striate.compiler.target import Target

KINDS = ("max", "min", "sum", "mean")

EPILOGUES = (
    "{pool}",
    "relu({pool} * r[p] * c[q] + B[i])",
    "{pool} * s[i] + z[b,p,q,i]",
)

targets = st.sampled_from(RUNNABLE)
features = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 67, 130])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_pooling(data: st.DataObject) -> None:
    draw = data.draw
    s, t = draw(st.integers(1, 3), "s"), draw(st.integers(1, 3), "t")
    d, e = draw(st.integers(1, 2), "d"), draw(st.integers(1, 2), "e")
    u, v = draw(st.integers(1, 4), "u"), draw(st.integers(1, 4), "v")
    a, c = draw(st.integers(0, 3), "a"), draw(st.integers(0, 3), "c")
    rows = draw(st.integers(max(1, d * (u - 1) + 1 - 2 * a), 12), "rows")
    columns = draw(st.integers(max(1, e * (v - 1) + 1 - 2 * c), 23), "columns")
    i = draw(features, "i")
    kind = draw(st.sampled_from(KINDS), "kind")
    pool = f"{kind}[u,v](x[b,{s}*p+{d}*u-{a},{t}*q+{e}*v-{c},i])"
    text = "y[b,p,q,i] = " + draw(st.sampled_from(EPILOGUES)).format(pool=pool)
    shape = (2, rows, columns, i)
    p = (rows + 2 * a - d * (u - 1) - 1) // s + 1 + draw(st.integers(0, 1), "ceil")
    q = (columns + 2 * c - e * (v - 1) - 1) // t + 1 + draw(st.integers(0, 1), "ceil")
    shapes = {"x": shape, "r": (p,), "c": (q,), "B": (i,), "s": (i,), "z": (2, p, q, i)}
    used = {name: size for name, size in shapes.items() if f"{name}[" in text}
    stated = statement(text, used, u=u, v=v, p=p, q=q)
    layouts = {}
    if draw(st.booleans(), "slices"):
        layouts = {"x": sliced(shape, 0, 5), "y": sliced((2, p, q, i), 0, 2)}
    elif draw(st.booleans(), "halo"):
        layouts = {
            "x": Layout.padded(shape, (1, 2, 0, 1)),
            "y": Layout.padded((2, p, q, i), (1,) * 4),
        }
    assert window.seconds(stated, Target.named("avx2")) is not None
    with patch.object(chunks, "ONE_CHUNK", draw(st.sampled_from([-1.0, 1.0]), "one chunk")):
        check(window, stated, draw(targets, "target"), layouts)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "shape", "sizes"),
    [
        ("y[b,i] = {}[p,q](x[b,p,q,i])", (2, 3, 4, 133), {}),
        ("y[b,p,i] = {}[u](x[b,3*p+u,i])", (2, 13, 5), {"u": 2}),
        (
            "y[b,p,q,r,i] = {}[u,v,w](x[b,2*p+u-1,q+v-1,2*r+w-1,i])",
            (1, 5, 5, 7, 9),
            {"u": 2, "v": 3, "w": 3},
        ),
        # Windows that lie partly, and some wholly, outside.
        (
            "y[b,p,q,i] = {}[u,v](x[b,p+u-5,q+v-5,i])",
            (1, 2, 2, 17),
            {"u": 3, "v": 3, "p": 9, "q": 9},
        ),
        ("y[i] = {}[u](x[u,i])", (40, 70), {}),
    ],
)
def test_other_windows(
    text: str, shape: tuple[int, ...], sizes: dict[str, int], kind: str, target: str
) -> None:
    stated = statement(text.format(kind), {"x": shape}, **sizes)
    with patch.object(chunks, "ONE_CHUNK", -1.0):
        check(window, stated, target)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("kind", ["max", "min"])
def test_nan_and_infinities_pass_through(kind: str, target: str) -> None:
    stated = statement(
        f"y[b,p,q,i] = {kind}[u,v](x[b,2*p+u-1,2*q+v-1,i])", {"x": (1, 9, 9, 20)}, u=3, v=3
    )
    operands = operands_for(stated)
    generator = np.random.default_rng(3)
    for value in (np.nan, np.inf, -np.inf):
        operands["x"][generator.uniform(size=operands["x"].shape) < 0.1] = value
    check(window, stated, target, operands=operands)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_tiles_vectors_or_chunks(kind: str) -> None:
    text = f"y[b,p,q,i] = {kind}[u,v](x[b,p+u-1,q+v-1,i])"
    stated = statement(text, {"x": (1, 9, 21, 40)}, u=3, v=3)
    operands = operands_for(stated)
    expected = run(window, stated, operands, "generic")
    for target in RUNNABLE:
        with patch.object(chunks, "ONE_CHUNK", -1.0):
            np.testing.assert_array_equal(run(window, stated, operands, target), expected)


@pytest.mark.parametrize(
    ("text", "shapes", "sizes"),
    [
        ("y[b,i] = sum[k](x[b,i+k-1])", {"x": (2, 9)}, {"k": 3}),
        ("y[b,p,i] = prod[u](x[b,p+u,i])", {"x": (2, 9, 4)}, {"u": 3}),
        ("y[b,i,p] = max[u](x[b,2*p+u,i])", {"x": (2, 9, 4)}, {"u": 3}),
        ("y[b,p,i] = max[u](x[b,(p+u)//2,i])", {"x": (2, 9, 4)}, {"u": 3}),
        ("y[b,p,i] = max[u](2 * x[b,p+u,i])", {"x": (2, 9, 4)}, {"u": 3}),
        ("y[b,p,i] = x[b,p+1,i]", {"x": (2, 9, 4)}, {}),
    ],
)
def test_does_not_fit(text: str, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int]) -> None:
    assert window.seconds(statement(text, shapes, **sizes), Target.named("avx2")) is None


def test_neon_assembly() -> None:
    stated = statement(
        "y[b,p,q,i] = max[u,v](x[b,2*p+u-1,2*q+v-1,i])", {"x": (1, 9, 9, 20)}, u=3, v=3
    )
    target = Target.named("neon")
    assert "fmax" in assembly(code(emit(window, stated, target)[1]), target)
