"""Convolutions whose outputs are pooled before they are stored."""

import re
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, emit, sliced, statement

from striate.compiler.layout import Layout
from striate.compiler.schedules import direct, winograd
from striate.compiler.schedules.pooled import take_apart
from striate.compiler.schedules.winograd_blocking import Blocking, Window
from striate.compiler.target import Target
from striate.notation.ir import Statement

INNER = ("{}", "relu({} + B[j])", "relu({} * G[j] + z[b, {m}*p+u, {n}*q+v, j])", "({} + f[()])")
OUTER = ("{}", "relu({} - A[j])", "{} / 4")
VGG = "y[b,p,q,j] = max[u,v](relu({} + B[j]))"
SUM = "sum[r,s,i](W[r,s,i,j] * x[b, 2*p+u+r-1, 2*q+v+s-1, i])"


@st.composite
def poolings(draw: st.DrawFn) -> Statement:
    """A convolution and a pooling of it, in one equation; perhaps the last row is in no window."""
    b, p, q = (draw(st.integers(1, n)) for n in (2, 5, 7))
    i, j = (draw(st.sampled_from([1, 3, 8, 15, 16, 17, 33, 50])) for _ in range(2))
    m, n = draw(st.sampled_from([(2, 2), (2, 2), (2, 2), (1, 2), (2, 1), (4, 2), (4, 4)]))
    taps = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (5, 5), (1, 3), (2, 3)]))
    stride, (above, left) = draw(st.integers(1, 2)), (taps[0] // 2, taps[1] // 2)
    rows, columns = (k * w + draw(st.integers(0, w - 1)) for k, w in ((p, m), (q, n)))
    h, w = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    row = f"{stride * m}*p + {stride}*u + r - {above}"
    column = f"{stride * n}*q + {stride}*v + s - {left}"
    inner = draw(st.sampled_from(INNER)).format(
        f"sum[r,s,i](W[r,s,i,j] * x[b, {row}, {column}, i])", m=m, n=n
    )
    kind = draw(st.sampled_from(["max", "max", "min", "sum"]))
    text = draw(st.sampled_from(OUTER)).format(f"{kind}[u,v]({inner})")
    shapes: dict[str, tuple[int, ...]] = {"W": (*taps, i, j), "x": (b, h, w, i)}
    shapes |= {"B": (j,), "G": (j,), "A": (j,), "f": (), "z": (b, rows, columns, j)}
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    return statement(f"y[b,p,q,j] = {text}", used, p=p, q=q, u=m, v=n)


def output_layout(draw: st.DrawFn, stated: Statement) -> dict[str, Layout]:
    shape = stated.shape
    found = [Layout.dense(shape), Layout.padded(shape, (1, 0, 2, 1)), sliced(shape, 3, 7)]
    return {"y": draw(st.sampled_from(found))}


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_direct(target: str, data: st.DataObject) -> None:
    stated = data.draw(poolings())
    assert take_apart(stated).reduction is not None
    check(direct, stated, target, output_layout(data.draw, stated))


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_winograd(target: str, data: st.DataObject) -> None:
    stated = data.draw(poolings())
    windows = winograd._windows(stated)
    if not windows:
        return
    chosen = data.draw(st.sampled_from(windows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_best", lambda _: chosen)
        check(winograd, stated, target, output_layout(data.draw, stated), rounding=10.0)


def stated_as(text: str, rows: int, columns: int, **sizes: int) -> Statement:
    shapes = {"W": (3, 3, 20, 40), "x": (2, rows, columns, 20), "B": (40,), "y2": (1, 4, 4, 40)}
    used = {name: shape for name, shape in shapes.items() if f"{name}[" in text}
    return statement(text, used, **sizes)


def test_the_layer_has_as_many_rows_and_columns_as_are_pooled() -> None:
    pooled = take_apart(stated_as(VGG.format(SUM), 15, 21, b=1, p=7, q=10, u=2, v=2))
    assert pooled.layer.shape == (1, 14, 20, 40)
    assert pooled.windows == (("p", 2), ("q", 2))


def test_a_tile_holds_whole_windows() -> None:
    """Images of whole fives have tiles of five, but not where pairs are pooled."""
    for size, tiles in ((20, {(4, 4), (2, 2)}), (40, {(4, 4), (2, 2)})):
        stated = stated_as(VGG.format(SUM), size, size, p=size // 2, q=size // 2, u=2, v=2)
        assert {window.tile for window in winograd._windows(stated)} == tiles
    four = stated_as(VGG.format(SUM.replace("2*", "4*")), 16, 16, p=4, q=4, u=4, v=4)
    assert {window.tile for window in winograd._windows(four)} == {(4, 4)}


@pytest.mark.parametrize(
    "text",
    {
        "windows that meet": VGG.format(SUM.replace("2*p", "p")),
        "gaps between windows": VGG.format(SUM.replace("2*p", "3*p")),
        "windows of other sizes": VGG.format(SUM),
        "another reduction": VGG.format(SUM).replace("max", "prod"),
        "no layer within": "y[b,p,q,i] = max[u,v](x[b, 2*p+u, 2*q+v, i])",
        "a window of windows": VGG.format(SUM.replace("2*p+u", "4*p+2*u+v").replace("2*q+v", "q")),
        "windows of images": VGG.format(SUM.replace("b, 2*p+u+r-1", "2*b+u, p+r-1")),
        "a read of each window": VGG.format(f"{SUM} + y2[b,p,q,j]"),
        "a read of each row": VGG.format(f"{SUM} + y2[b,p,q,j]")
        .replace("[u,v]", "[u]")
        .replace("2*q+v", "q"),
        "a read of each window after": f"{VGG.format(SUM)} + y2[b,p,q,j]",
        "rows and columns exchanged": VGG.format(SUM).replace("2*p+u", "2*p+v", 1),
    }.items(),
    ids=lambda pair: pair[0],
)
@pytest.mark.parametrize("schedule", [direct, winograd])
def test_other_poolings_are_not_taken(text: tuple[str, str], schedule: ModuleType) -> None:
    name, equation = text
    size = 3 if name == "windows of other sizes" else 2
    windows = dict.fromkeys("uv" if "[u,v]" in equation else "u", size)
    stated = stated_as(equation, 20, 20, b=1, p=4, q=4, **windows)
    assert (take_apart(stated).reduction is None) == (name != "windows of images")
    assert schedule.seconds(stated, Target.named("avx2")) is None


@pytest.mark.parametrize("target", RUNNABLE)
def test_rows_that_are_pooled_are_not_joined(target: str) -> None:
    """The outputs' margin makes a half of a row's step as long as two rows of them."""
    text = "y[b,p,q,j] = max[u,v](sum[i](W[i,j] * x[b, 2*p+u, 2*q+v, i]))"
    stated = statement(text, {"W": (5, 9), "x": (1, 12, 4, 5)}, p=6, q=2, u=2, v=2)
    check(direct, stated, target, {"y": Layout.padded(stated.shape, (0, 0, 1, 1))})


def test_the_lines_of_pooled_outputs_are_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a tile's outputs are stored; the last one is asked for with product 8."""
    stated = stated_as(VGG.format(SUM), 200, 200, p=100, q=100, u=2, v=2)
    blocking = Blocking(span=20, parts=1, block=5, rows=1, vectors=1, panels=5)
    first: list[Window] = winograd._windows(stated)[:1]
    monkeypatch.setattr(winograd, "_best", lambda _: first[0])
    monkeypatch.setattr(winograd, "choose_blocking", lambda *_: (0.0, blocking))
    code = emit(winograd, stated, Target.named("avx2"))[1].write().function("k")
    assert re.search(r"icmp slt i64 %\w+, 9\n", code)
    assert not re.search(r"icmp slt i64 %\w+, 36\n", code)
