"""Winograd's convolution: its matrices, and its kernel against the interpreter."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, emit, operands_for, run, sliced, statement

from striate.compiler.codegen import assembly
from striate.compiler.schedules import winograd, winograd_blocking
from striate.compiler.schedules.winograd_blocking import Blocking, fetches_windows
from striate.compiler.target import Target
from striate.compiler.toom_cook import algorithm
from striate.notation import interpret

CONVOLUTION = "y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b, p+u-1, q+v-1, i])"
# F(4x4,3x3) multiplies by up to 64 and back: its rounding is about ten times a plain sum's.
ROUNDING = 10.0
RESIDUAL = f"{CONVOLUTION.replace('y[b,p,q,j] = ', 'y[b,p,q,j] = relu(')} + B[j] + z[b,p,q,j])"
# Images of a few pixels outgrow it.
SMALL_CACHE = replace(Target.named(RUNNABLE[0]), l2=72 << 10)


@pytest.mark.parametrize(
    ("m", "r"), [(1, 1), (1, 3), (2, 3), (3, 3), (4, 3), (2, 5), (4, 5), (4, 7)]
)
def test_the_algorithm_is_a_correlation(m: int, r: int) -> None:
    made = algorithm(m, r)
    data = [Fraction(7 * k * k - 3 * k + 2, 5) for k in range(m + r - 1)]
    taps = [Fraction(3 - 2 * k * k, k + 1) for k in range(r)]
    left = [sum(c * g for c, g in zip(row, taps, strict=True)) for row in made.weights]
    right = [sum(c * d for c, d in zip(row, data, strict=True)) for row in made.data]
    products = [a * b for a, b in zip(left, right, strict=True)]
    got = [sum(c * p for c, p in zip(row, products, strict=True)) for row in made.output]
    assert got == [sum(taps[k] * data[n + k] for k in range(r)) for n in range(m)]


@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (3, 2), (4, 2), (7, 2), (11, 4), (2, 3)])
def test_the_phases_of_a_stride_share_its_points(taps: int, stride: int) -> None:
    reach = math.ceil(taps / stride)
    made = algorithm(4, reach)
    weights = [Fraction(3 - 2 * k * k, k + 1) for k in range(taps)]
    data = [Fraction(7 * k * k - 3 * k + 2, 5) for k in range(stride * (reach + 4))]
    products = [Fraction(0)] * (reach + 3)
    for phase in range(min(stride, taps)):
        for n, (row, column) in enumerate(zip(made.weights, made.data, strict=True)):
            left = sum(c * g for c, g in zip(row, weights[phase::stride], strict=False))
            right = sum(c * d for c, d in zip(column, data[phase::stride], strict=False))
            products[n] += left * right
    got = [sum(c * p for c, p in zip(row, products, strict=True)) for row in made.output]
    assert got == [sum(weights[k] * data[stride * n + k] for k in range(taps)) for n in range(4)]


def test_too_few_points_is_said() -> None:
    with pytest.raises(ValueError, match="takes 11 points; there are 9"):
        algorithm(6, 7)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 2),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    channels=st.sampled_from([1, 3, 4, 5, 16, 17, 31]),
    features=st.sampled_from([1, 3, 8, 16, 17, 33, 70]),
    taps=st.sampled_from(
        [(3, 3), (3, 3), (1, 7), (7, 1), (1, 3), (3, 1), (5, 5), (3, 5), (2, 2), (7, 7)]
    ),
    stride=st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 2), (3, 1), (4, 4)]),
    number=st.integers(0, 1),
    target=st.sampled_from(RUNNABLE),
)
def test_the_kernel_is_the_equation(
    batch: int,
    rows: int,
    columns: int,
    channels: int,
    features: int,
    taps: tuple[int, int],
    stride: tuple[int, int],
    number: int,
    target: str,
) -> None:
    above, left = taps[0] // 2, taps[1] // 2
    down, right = stride
    stated = statement(
        RESIDUAL.replace("p+u-1", f"{down}*p+u-{above}").replace("q+v-1", f"{right}*q+v-{left}"),
        {
            "W": (*taps, channels, features),
            "x": (batch, (rows - 1) * down + 1, (columns - 1) * right + 1, channels),
            "B": (features,),
            "z": (batch, rows, columns, features),
        },
        p=rows,
        q=columns,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_best", lambda stated: winograd._windows(stated)[number])
        if winograd._windows(stated):
            check(winograd, stated, target, rounding=ROUNDING)


@pytest.mark.parametrize(
    ("images", "size", "tile"),
    [(1, (5, 5), 5), (1, (10, 15), 5), (1, (35, 35), 5), (1, (68, 71), 6), (4, (31, 32), 6)],
)
@pytest.mark.parametrize("target", RUNNABLE)
def test_larger_tiles_are_tried_where_they_fit_or_are_many(
    images: int, size: tuple[int, int], tile: int, target: str
) -> None:
    stated = statement(CONVOLUTION, {"W": (3, 3, 21, 50), "x": (images, *size, 21)})
    assert winograd._windows(stated)[0].tile == (tile, tile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_best", lambda stated: winograd._windows(stated)[0])
        check(winograd, stated, target, rounding=2 * ROUNDING)


def test_a_stride_of_two_has_larger_tiles() -> None:
    stated = statement(
        RESIDUAL.replace("p+u-1", "2*p+u-3").replace("q+v-1", "2*q+v-3"),
        {"W": (5, 5, 5, 20), "x": (1, 138, 139, 5), "B": (20,), "z": (1, 68, 69, 20)},
        p=68,
        q=69,
    )
    assert winograd._windows(stated)[0].tile == (6, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_best", lambda stated: winograd._windows(stated)[0])
        check(winograd, stated, RUNNABLE[0], rounding=2 * ROUNDING)


@pytest.mark.parametrize(
    ("taps", "size"),
    [((3, 3), (35, 34)), ((5, 5), (35, 35)), ((3, 3), (60, 72)), ((1, 7), (70, 70))],
)
def test_others_have_not(taps: tuple[int, int], size: tuple[int, int]) -> None:
    stated = statement(CONVOLUTION, {"W": (*taps, 21, 50), "x": (1, *size, 21)})
    assert {max(window.tile) for window in winograd._windows(stated)} <= {4, 2}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("span", [5, 20])
@pytest.mark.parametrize("block", [3, 5])
@pytest.mark.parametrize(
    ("rows", "vectors", "paired"),
    [(1, 3, False), (2, 1, False), (3, 2, False), (1, 1, True), (2, 1, True), (5, 1, True)],
)
def test_every_blocking_is_the_equation(
    parts: int, span: int, block: int, rows: int, vectors: int, paired: bool
) -> None:
    stated = statement(CONVOLUTION, {"W": (3, 3, 21, 100), "x": (1, 30, 34, 21)})
    target = SMALL_CACHE
    panels = math.ceil(math.ceil(100 / target.lanes) / vectors)
    blocking = Blocking(span, parts, block, rows, vectors, panels, paired)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_best", lambda stated: winograd._windows(stated)[0])
        patch.setattr(winograd, "choose_blocking", lambda *_: (0.0, blocking))
        check(winograd, stated, target, rounding=ROUNDING)
        window = winograd._best(stated)
    assert fetches_windows(window, target, blocking) == (block < span)


@pytest.mark.parametrize("target", RUNNABLE)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_pairs_of_channels(target: str, data: st.DataObject) -> None:
    channels = data.draw(st.sampled_from([16, 17, 40, 64]))
    features = data.draw(st.sampled_from([1, 16, 33]))
    size = data.draw(st.integers(3, 15)), data.draw(st.sampled_from([7, 14, 16]))
    stated = statement(
        RESIDUAL,
        {
            "W": (3, 3, channels, features),
            "x": (2, *size, channels),
            "B": (features,),
            "z": (2, *size, features),
        },
    )
    adders = replace(Target.named(target), adders=True)
    blockings = winograd_blocking._blockings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            winograd_blocking,
            "_blockings",
            lambda *given: (one for one in blockings(*given) if one.paired or not given[1].adders),
        )
        winograd_blocking.choose_blocking.cache_clear()
        assert "pairs of channels" in emit(winograd, stated, adders)[1].plan
        check(winograd, stated, adders, rounding=2 * ROUNDING)
    winograd_blocking.choose_blocking.cache_clear()


def test_what_outgrows_the_cache_is_fetched() -> None:
    blocking = Blocking(span=20, parts=1, block=5, rows=1, vectors=1, panels=7)
    found = []
    for size in [(6, 18), (30, 18), (30, 34)]:
        stated = statement(CONVOLUTION, {"W": (3, 3, 21, 100), "x": (1, *size, 21)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(winograd, "choose_blocking", lambda *_: (0.0, blocking))
            code = emit(winograd, stated, SMALL_CACHE)[1].write().function("k")
        # What later steps read is fetched to the first cache, and not counted.
        lines = [line for line in code.splitlines() if "call  void @llvm.prefetch" in line]
        found.append(sum(line.endswith("i32 2, i32 1)") for line in lines))
    weights = found[0]
    assert found == [weights, weights + 1, weights + 2]


@pytest.mark.parametrize("target", RUNNABLE)
def test_unpadded_and_into_a_slice(target: str) -> None:
    text = CONVOLUTION.replace("p+u-1", "p+u").replace("q+v-1", "q+v")
    stated = statement(text, {"W": (3, 3, 20, 24), "x": (1, 15, 10, 20)})
    check(winograd, stated, target, {"y": sliced((1, 13, 8, 24), 0, 9)}, rounding=ROUNDING)


@pytest.mark.parametrize(
    ("taps", "stride", "channels"),
    [((3, 3), 1, 128), ((1, 7), 1, 128), ((5, 5), 1, 128), ((7, 7), 2, 3), ((11, 11), 4, 3)],
)
def test_the_error_is_rounding(taps: tuple[int, int], stride: int, channels: int) -> None:
    text = CONVOLUTION.replace("p+u", f"{stride}*p+u").replace("q+v", f"{stride}*q+v")
    shapes = {"W": (*taps, channels, 64), "x": (1, 28 * stride, 28 * stride, channels)}
    stated = statement(text, shapes, p=21, q=21)
    operands = operands_for(stated)
    exact = interpret(stated, {name: x.astype(np.float64) for name, x in operands.items()})
    got = run(winograd, stated, operands, RUNNABLE[0])
    assert np.abs(got - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize(
    "text",
    [
        CONVOLUTION.replace("p+u-1", "2*p+2*u-2"),
        CONVOLUTION.replace("q+v-1", "q+2*v-2"),
        CONVOLUTION.replace("W[u,v,i,j]", "W[v,u,i,j]"),
        CONVOLUTION.replace("p+u-1", "p+u").replace("q+v-1", "q+v") + " with one tap",
    ],
)
def test_other_convolutions_do_not_fit(text: str) -> None:
    taps = (1, 1) if "one tap" in text else (3, 3)
    text = text.removesuffix(" with one tap")
    stated = statement(text, {"W": (*taps, 32, 32), "x": (1, 9, 9, 32)})
    assert winograd.seconds(stated, Target.named("avx2")) is None


def test_neon_multiplies_and_adds_at_once() -> None:
    target = Target.named("neon")
    stated = statement(CONVOLUTION, {"W": (3, 3, 32, 32), "x": (1, 9, 9, 32)})
    assert "fmla" in assembly(emit(winograd, stated, target)[1].write().function("k"), target)
