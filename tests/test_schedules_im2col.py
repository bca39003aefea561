"""Explicit im2col takes the contractions that no halo can serve, and sums them as `direct` does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, code, emit, operands_for, run, sliced, statement

from striate.compiler.choose import choose
from striate.compiler.codegen import assembly
from striate.compiler.layout import Layout
from striate.compiler.schedules import direct, im2col
from striate.compiler.target import Target
from striate.layers.apply import _graph
from striate.network.graph import Computed
from striate.notation.ir import Statement

features = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 33, 48])
# Columns of one tile at a time, and of as many as there are.
caches = st.sampled_from([1 << 10, 1 << 14, 1 << 20])


def target_of(name: str, l2: int) -> Target:
    target = Target.named(name)
    return replace(target, l2=l2, halved=target.lanes == 16)


@st.composite
def axes(draw: st.DrawFn, row: str, tap: str) -> tuple[str, int, int, int]:
    """An access with stride, dilation and padding; sizes of the data, the window, the output."""
    step, dilation, window = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
    )
    before, size = draw(st.integers(0, 3)), draw(st.integers(1, 9))
    reach = dilation * (window - 1) + 1
    least = max(0, reach - before - size)
    output = (size + before + draw(st.integers(least, least + 3)) - reach) // step + 1
    return f"{step}*{row}+{dilation}*{tap}-{before}", size, window, output


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=14, deadline=None, derandomize=True)
@given(st.data())
def test_convolution(target: str, rank: int, data: st.DataObject) -> None:
    draw = data.draw
    rows, taps = "pqr"[:rank], "uvw"[:rank]
    found = [draw(axes(row, tap)) for row, tap in zip(rows, taps, strict=True)]
    b, i, j = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 8, 17, 35])), draw(features)
    accesses, inside = ",".join(f[0] for f in found), ",".join(taps)
    total = f"sum[{inside},i](W[{inside},i,j] * x[b,{accesses},i])"
    outer = ",".join(rows)
    text = draw(st.sampled_from(["{}", "relu({} + B[j])", "{} + R[b,{rows},j]"]))
    text = text.format(total, rows=outer)
    output = (b, *[f[3] for f in found], j)
    shapes = {
        "x": (b, *[f[1] for f in found], i),
        "W": (*[f[2] for f in found], i, j),
        "B": (j,),
        "R": output,
    }
    given = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    sizes = {row: f[3] for row, f in zip(rows, found, strict=True)}
    stated = statement(f"y[b,{outer},j] = {text}", given, **sizes)
    extra = draw(st.sampled_from([0, 3]))
    layouts = {name: sliced(given.get(name, output), 0, extra) for name in ("x", "y")}
    if rank == 2 and draw(st.booleans()):
        # Rows that don't follow one another: a tile takes some columns of each of several.
        layouts["y"] = Layout.padded(output, (1, 0, 2, 1))
    check(im2col, stated, target_of(target, draw(caches)), layouts)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("m", "n"), [(1, 2), (3, 3), (4, 17), (16, 16), (2, 1)])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.data())
def test_groups(target: str, m: int, n: int, data: st.DataObject) -> None:
    draw = data.draw
    access, size, window, output = draw(axes("p", "u"))
    g = draw(st.sampled_from([1, 2, 5]))
    stated = statement(
        f"y[b,p,{n}*g+j] = sum[u,i](W[u,i,{n}*g+j] * x[b,{access},{m}*g+i]) + B[{n}*g+j]",
        {"x": (2, size, m * g), "W": (window, m, n * g), "B": (n * g,)},
        p=output,
        g=g,
        j=n,
    )
    check(im2col, stated, target_of(target, draw(caches)))


IMAGE = {"x": (2, 9, 8, 5), "W": (3, 3, 5, 37)}
CASES = [
    # Transposed convolutions: places that don't divide are left out.
    ("y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,(p-u+1)/2,(q-v+1)/2,i])", IMAGE, {"p": 18, "q": 16}),
    (
        "y[b,p,j] = sum[u,i](W[u,i,j] * x[b,(p-2*u+2)/3,i])",
        {"x": (2, 7, 20), "W": (4, 20, 9)},
        {"p": 20},
    ),
    ("y[p,j] = sum[u](W[u,j] * x[(p+u-1)//2])", {"x": (9,), "W": (5, 18)}, {"p": 16}),
    # The window slides along the features.
    ("y[b,p,q,h,j] = sum[i](W[i,j] * x[b,p,q,h+i-1])", {"x": (2, 3, 4, 8), "W": (3, 8)}, {"h": 8}),
    ("y[b,h,j] = sum[u](W[u,j] * x[2*h+3*u-4,b])", {"x": (40, 3), "W": (5, 8)}, {"h": 20}),
    # Several rows a tile, and pixels that no tile of whole rows holds.
    (
        "y[p,q,r,j] = sum[u,v,w](W[u,v,w,j] * x[p+u-1,q+v-1,r+w-1])",
        {"x": (5, 6, 3), "W": (3, 2, 3, 40)},
        {"q": 6},
    ),
    (
        "y[p,q,j] = sum[u,v](W[u,v,j] * x[p+u-1,q+v-1]) + R[p,q,j]",
        {"x": (9, 50), "W": (3, 3, 33), "R": (9, 50, 33)},
        {},
    ),
    # The data is read again after the reduction.
    (
        "y[b,p,j] = sum[u,i](W[u,i,j] * x[b,p+u-1,i]) + x[b,p,j]",
        {"x": (2, 9, 17), "W": (3, 17, 17)},
        {},
    ),
    ("columns[b,p,j] = sum[u,i](W[u,i,j] * x[b,p+u-1,i])", {"x": (2, 9, 17), "W": (3, 17, 17)}, {}),
]


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("text", "shapes", "sizes"), CASES, ids=[case[0] for case in CASES])
def test_case(
    text: str, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], target: str
) -> None:
    stated = statement(text, shapes, **sizes)
    assert direct.seconds(stated, Target.named(target)) is None
    assert chosen(stated) == "im2col"
    check(im2col, stated, target)


def chosen(stated: Statement) -> str:
    (node,) = _graph(stated).outputs
    assert isinstance(node, Computed)
    return choose(node, Target.named("avx512")).name


CONVOLUTION = "y[b,p,q,j] = relu(sum[u,v,i](W[u,v,i,j] * x[b,p+u-1,q+v-1,i]))"


def test_direct_is_chosen_where_it_fits() -> None:
    texts = [
        statement(CONVOLUTION.replace("p+u", "2*p+u"), IMAGE),
        statement("y[b,j] = sum[i](W[i,j] * x[b,i])", {"x": (3, 100), "W": (100, 8)}),
        statement("y[b,p,j] = sum[u,i](W[u,i,j] * x[b,p+u,i])", {"x": (2, 9, 8), "W": (3, 8, 8)}),
    ]
    assert [chosen(stated) for stated in texts] == ["direct"] * 3


def test_refused() -> None:
    target = Target.named("avx512")
    own = statement("y[b,p,j] = sum[u](W[p,u,j] * x[b,p+u])", {"x": (2, 9), "W": (7, 3, 37)})
    depthwise = statement("y[b,p,g] = sum[u](W[u,g] * x[b,p+u-1,g])", {"x": (2, 9, 8), "W": (3, 8)})
    assert im2col.seconds(own, target) is im2col.seconds(depthwise, target) is None


@pytest.mark.parametrize("target", RUNNABLE)
def test_bits_are_those_of_direct(target: str) -> None:
    stated = statement(CONVOLUTION, IMAGE)
    operands = operands_for(stated)
    expected = run(direct, stated, operands, target)
    for l2 in (1 << 10, 1 << 16):
        np.testing.assert_array_equal(
            run(im2col, stated, operands, target_of(target, l2)), expected
        )


def test_columns_stay_in_the_cache_and_work_is_cut_into_chunks() -> None:
    target = Target.named("avx512")
    stated = statement(
        "y[b,p,q,r,j] = sum[u,v,w,i](W[u,v,w,i,j] * x[b,p+u-1,q+v-1,r+w-1,i])",
        {"x": (1, 14, 14, 14, 32), "W": (3, 3, 3, 32, 64)},
    )
    _, emission = emit(im2col, stated, target)
    assert emission.chunks >= 8
    assert 64 <= emission.scratch_bytes <= target.l2
    assert emission.scratch_bytes % 64 == 0


def test_scratch_is_enough() -> None:
    """What is written there lies in what the emission asks for: the harness guards it."""
    stated = statement(
        "y[b,p,j] = sum[u,i](W[u,i,j] * x[b,p+u-2,i])", {"x": (2, 50, 19), "W": (5, 19, 33)}
    )
    for target in RUNNABLE:
        for l2 in (1 << 10, 1 << 14, 1 << 18):
            check(im2col, stated, target_of(target, l2))


def test_data_under_a_halo() -> None:
    stated = statement(
        "y[b,p,q,j] = sum[u,i](W[u,i,j] * x[b,p,q,2*i+u])", {"x": (2, 4, 5, 9), "W": (3, 4, 8)}
    )
    layout = Layout.padded((2, 4, 5, 9), (1, 2, 0, 1))
    check(im2col, stated, RUNNABLE[0], {"x": layout})


def test_neon_assembly() -> None:
    stated, target = statement(CONVOLUTION, IMAGE), Target.named("neon")
    assert "fmla" in assembly(code(emit(im2col, stated, target)[1]), target)
