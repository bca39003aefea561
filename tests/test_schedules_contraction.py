"""The schedules of contractions compute what the interpreter says, at any size, on any layout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, code, emit, operands_for, run, sliced, statement

from striate.compiler.codegen import assembly
from striate.compiler.layout import NO_HALO, Halo, Layout
from striate.compiler.schedules import direct, grouped
from striate.compiler.target import Target
from striate.notation.ir import Statement

targets = st.sampled_from(RUNNABLE)
# One, primes, and the lanes of every target with their neighbours.
features = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 48, 67])

# The reduced value `{0}` and the feature access `{1}` on the way to the output.
EPILOGUES = [
    "{0}",
    "{0} + B[{1}]",
    "relu({0} + B[{1}])",
    "clip({0} + B[{1}], 0, 6)",
    "relu({0} + B[{1}] + R[b,p,q,{1}])",
    "sigmoid({0}) * R[b,p,q,{1}] + T[()]",
    "{0} * S[b] + R[b,p,q,0]",
]


def shapes_of(text: str, output: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of an epilogue's operands."""
    shapes = {"B": output[-1:], "R": output, "S": output[:1], "T": ()}
    return {name: shape for name, shape in shapes.items() if f"{name}[" in text}


@st.composite
def windows(draw: st.DrawFn, most_taps: int = 3) -> tuple[str, str, dict[str, int], dict[str, int]]:
    """The accesses of rows and columns, the window, and the sizes of the image and the output."""
    accesses, window, image, output = [], {}, {}, {}
    for row, tap in (("p", "u"), ("q", "v")):
        step, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        window[tap] = draw(st.integers(1, most_taps))
        before = draw(st.integers(0, 3))
        reach = dilation * (window[tap] - 1) + 1
        image[row] = draw(st.integers(1, 12))
        # Padding before and after need not be alike.
        least = max(0, reach - before - image[row])
        after = draw(st.integers(least, least + 4))
        output[row] = (image[row] + before + after - reach) // step + 1
        accesses.append(f"{step}*{row}+{dilation}*{tap}-{before}")
    return accesses[0], accesses[1], window, {**image, "P": output["p"], "Q": output["q"]}


@st.composite
def places(draw: st.DrawFn, shape: tuple[int, ...], margin: Halo = NO_HALO) -> Layout:
    """`shape` in memory: dense, or a slice of the features of a larger tensor, with a halo."""
    extra = draw(st.sampled_from([0, 0, 3, 16]))
    if len(shape) != 4:
        return sliced(shape, 0, extra) if shape else Layout.dense(shape)
    more = draw(st.sampled_from([NO_HALO, NO_HALO, (1, 0, 2, 1)]))
    around = tuple(a + b for a, b in zip(margin, more, strict=True))
    halo: Halo = (around[0], around[1], around[2], around[3])
    wide = Layout.padded((*shape[:3], shape[3] + extra), halo)
    return Layout(shape, wide.strides, halo)


def layouts(draw: st.DrawFn, stated: Statement, margins: dict[str, Halo]) -> dict[str, Layout]:
    """A place for the data, the residual and the output."""
    shapes = dict([*stated.shapes, (stated.equation.output.tensor, stated.shape)])
    return {
        name: draw(places(shapes[name], margins.get(name, NO_HALO)))
        for name in ("x", "R", "y")
        if name in shapes
    }


@pytest.mark.parametrize("target_name", RUNNABLE)
@settings(max_examples=35, deadline=None, derandomize=True)
@given(st.data())
def test_convolution(target_name: str, data: st.DataObject) -> None:
    draw = data.draw
    rows, columns, window, size = draw(windows())
    b, i, j = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 5, 8, 11])), draw(features)
    total = f"sum[u,v,i](W[u,v,i,j] * x[b,{rows},{columns},i])"
    text = draw(st.sampled_from(EPILOGUES)).format(total, "j")
    stated = statement(
        f"y[b,p,q,j] = {text}",
        {
            "x": (b, size["p"], size["q"], i),
            "W": (window["u"], window["v"], i, j),
            **shapes_of(text, (b, size["P"], size["Q"], j)),
        },
        p=size["P"],
        q=size["Q"],
    )
    target = Target.named(target_name)
    target = replace(target, halved=target.lanes == 16 and draw(st.booleans(), "halved"))
    assert direct.seconds(stated, target) is not None
    check(direct, stated, target, layouts(draw, stated, direct.halo(stated)))


@pytest.mark.parametrize("target_name", RUNNABLE)
@pytest.mark.parametrize(
    ("m", "n"), [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (3, 3), (1, 2), (2, 1), (3, 6)]
)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.data())
def test_grouped_convolution(target_name: str, m: int, n: int, data: st.DataObject) -> None:
    """Groups of m inputs and n features."""
    draw = data.draw
    rows, columns, window, size = draw(windows())
    g = draw(st.sampled_from([1, 2, 3, 5, 8, 9, 17]), "groups")
    b = draw(st.integers(1, 2))
    total = f"sum[u,v,i](W[u,v,i,{n}*g+j] * x[b,{rows},{columns},{m}*g+i])"
    text = draw(st.sampled_from(EPILOGUES)).format(total, f"{n}*g+j")
    stated = statement(
        f"y[b,p,q,{n}*g+j] = {text}",
        {
            "x": (b, size["p"], size["q"], m * g),
            "W": (window["u"], window["v"], m, n * g),
            **shapes_of(text, (b, size["P"], size["Q"], n * g)),
        },
        p=size["P"],
        q=size["Q"],
        g=g,
        j=n,
    )
    target = Target.named(target_name)
    fits = m == n < target.lanes and target.lanes % n == 0
    assert (grouped.seconds(stated, target) is not None) == fits
    assert direct.seconds(stated, target) is not None
    schedule = grouped if fits else direct
    check(schedule, stated, target, layouts(draw, stated, schedule.halo(stated)))


@pytest.mark.parametrize("target_name", RUNNABLE)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_depthwise(target_name: str, data: st.DataObject) -> None:
    draw = data.draw
    rows, columns, window, size = draw(windows(most_taps=5))
    b, g = draw(st.integers(1, 2)), draw(features)
    weight, shape = draw(st.sampled_from([("W[u,v,g]", (g,)), ("W[u,v,0,g]", (1, g))]))
    text = draw(st.sampled_from(EPILOGUES)).format(
        f"sum[u,v]({weight} * x[b,{rows},{columns},g])", "g"
    )
    stated = statement(
        f"y[b,p,q,g] = {text}",
        {
            "x": (b, size["p"], size["q"], g),
            "W": (window["u"], window["v"], *shape),
            **shapes_of(text, (b, size["P"], size["Q"], g)),
        },
        p=size["P"],
        q=size["Q"],
    )
    target = Target.named(target_name)
    assert grouped.seconds(stated, target) is not None
    check(grouped, stated, target, layouts(draw, stated, grouped.halo(stated)))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 35), st.sampled_from([1, 2, 7, 16, 33, 101, 300]), features, st.data())
def test_matrix_product(b: int, i: int, j: int, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(["{}", "relu({} + B[j])"]))
    stated = statement(
        f"y[b,j] = {text.format('sum[i](W[i,j] * x[b,i])')}",
        {"x": (b, i), "W": (i, j), **({"B": (j,)} if "B[" in text else {})},
    )
    check(direct, stated, data.draw(targets), layouts(data.draw, stated, {}))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.tuples(*[st.integers(1, 6)] * 2, st.sampled_from([1, 3, 8, 17])),
    features,
    targets,
)
def test_linear_on_flattened_images(
    b: int, image: tuple[int, int, int], j: int, target: str
) -> None:
    """The weights lie in torch's order (feature, row, column), the image in its own."""
    p, q, i = image
    stated = statement(
        f"y[b,j] = relu(sum[p,q,i](W[{p * q}*i+{q}*p+q,j] * x[b,p,q,i]) + B[j])",
        {"x": (b, *image), "W": (p * q * i, j), "B": (j,)},
        p=p,
        q=q,
        i=i,
    )
    assert direct.seconds(stated, Target.named(target)) is not None
    check(direct, stated, target)


CONVOLUTION = "sum[u,v,i](W[u,v,i,j] * x[b,p+u-1,q+v-1,i])"
SHAPES = {"x": (2, 9, 8, 5), "W": (3, 3, 5, 37)}
UNUSUAL = [
    # The window runs backwards, as in the gradient of a convolution.
    ("y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,p-u+1,q-v+1,i])", SHAPES, {"p": 9, "q": 8}),
    # The reduction in another order than the data's.
    ("y[b,p,q,j] = sum[i,v,u](W[u,v,i,j] * x[b,p+u-1,q+v-1,i])", SHAPES, {}),
    ("y[b,p,q,j] = sum[i,v,u](x[b,p+u-1,q+v-1,i] * W[u,v,i,j])", SHAPES, {}),
    # The weights' features are not their last axis, some of their places are never read.
    ("y[b,j] = sum[i](W[j,i] * x[b,i])", {"x": (3, 7), "W": (41, 7)}, {}),
    (
        "y[b,p,q,j] = sum[u,v,i](W[j,i,u,v] * x[b,p+u-1,q+v-1,i])",
        {**SHAPES, "W": (37, 5, 3, 3)},
        {},
    ),
    (
        "y[b,p,q,5*g+j] = sum[u,i](W[i,2-u,5*g+j,1] * x[b,p+u-1,q,2*g+i])",
        {"x": (2, 9, 8, 6), "W": (2, 4, 15, 3)},
        {"g": 3, "j": 5, "u": 3},
    ),
    # Rows in another order than in memory, and the weights' axes too.
    ("y[q,b,p,j] = sum[u,v,i](W[i,v,u,j] * x[b,p+u,q+v,i])", {**SHAPES, "W": (5, 3, 3, 37)}, {}),
    # Of the value reduced, all but the feature's index is a window.
    ("y[p,j] = sum[u](W[u,j] * x[2*p+3*u])", {"x": (40,), "W": (5, 7)}, {}),
    (
        "y[p,q,r,j] = sum[u,v,w](W[u,v,w,j] * x[p+u,q+v,r+w])",
        {"x": (5, 6, 7), "W": (3, 2, 3, 9)},
        {},
    ),
    # The data is read again after the reduction, from under its halo.
    (f"y[b,p,q,j] = {CONVOLUTION} + x[b,p,q,2]", SHAPES, {}),
    (
        f"y[b,p,q,j] = {CONVOLUTION} + x[b,p,q,j]",
        {**SHAPES, "x": (2, 9, 8, 37), "W": (3, 3, 37, 37)},
        {},
    ),
    # The reduced value is used twice (swish).
    (f"y[b,p,q,j] = {CONVOLUTION} * sigmoid({CONVOLUTION})", SHAPES, {}),
    # The names that packing uses are taken.
    ("y[b,block] = sum[lane](W[lane,block] * x[b,lane])", {"x": (3, 7), "W": (7, 41)}, {}),
    ("packed[b,lane] = sum[block](W[block,lane] * x[b,block])", {"x": (3, 7), "W": (7, 41)}, {}),
]


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("text", "shapes", "sizes"), UNUSUAL, ids=[e[0] for e in UNUSUAL])
def test_unusual_contraction(
    text: str, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], target: str
) -> None:
    stated = statement(text, shapes, **sizes)
    assert direct.seconds(stated, Target.named(target)) is not None
    check(direct, stated, target)


GROUPED = [
    ("y[b,p,g] = sum[u](W[g,2-u,1] * x[b,p+u,g])", {"x": (2, 9, 37), "W": (37, 3, 2)}, {"u": 3}),
    (
        "y[b,p,4*g+j] = sum[u,i](W[i,4*g+j,u] * x[b,p+u,4*g+i])",
        {"x": (2, 9, 20), "W": (4, 20, 3)},
        {"g": 5, "j": 4},
    ),
]


@pytest.mark.parametrize("target", [name for name in RUNNABLE if name != "generic"])
@pytest.mark.parametrize(("text", "shapes", "sizes"), GROUPED, ids=[e[0] for e in GROUPED])
def test_unusual_groups(
    text: str, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], target: str
) -> None:
    stated = statement(text, shapes, **sizes)
    assert grouped.seconds(stated, Target.named(target)) is not None
    check(grouped, stated, target)


@pytest.mark.parametrize("target", [name for name in RUNNABLE if name != "generic"])
def test_weights_of_few_pixels_are_asked_for_ahead(target: str) -> None:
    """Where they come from memory, and the panel to come finds room beside the one in use."""
    stated = statement("y[p,j] = sum[i](W[i,j] * x[p,i])", {"x": (3, 41), "W": (41, 300)})

    def prefetches(l2: int) -> int:
        small = replace(Target.named(target), l2=l2)
        check(direct, stated, small)
        _, emission = emit(direct, stated, small)
        return code(emission).count("call  void @llvm.prefetch")

    weights = 4 * 41 * 300
    in_cache, from_memory, no_room = (prefetches(l2) for l2 in (5 * weights, 3 * weights, 64))
    assert from_memory > in_cache
    assert no_room == in_cache


REFUSED = [
    # Weights of their own for every place.
    ("y[b,p,j] = sum[u](W[p,u,j] * x[b,p+u])", {"x": (2, 9), "W": (7, 3, 37)}, {}),
    # A window that leaves the features, where no halo can be.
    ("y[b,p,q,g] = sum[i](W[i,g] * x[b,p,q,g+i-1])", {"x": (2, 3, 4, 8), "W": (3, 8)}, {}),
    ("y[b,p,j] = sum[u](W[u,j] * x[b,p+u-1])", {"x": (2, 9), "W": (3, 37)}, {}),
    ("y[b,p,q,j] = max[u,v,i](W[u,v,i,j] * x[b,p+u-1,q+v-1,i])", SHAPES, {}),
    ("y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] + x[b,p+u-1,q+v-1,i])", SHAPES, {}),
    ("y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,(p+u-1)//2,q+v-1,i])", SHAPES, {"p": 16}),
    # What is packed for the reduction can't be read in its own order after it.
    ("y[b,j] = sum[i](W[i,j] * x[b,i]) + W[0,j]", {"x": (3, 7), "W": (7, 41)}, {}),
    ("y[b,p,q,g] = sum[u](W[u,g] * x[b,p+u,q,g]) + W[0,g]", {"x": (1, 5, 5, 8), "W": (3, 8)}, {}),
    (f"y[b,p,q,j] = {CONVOLUTION} + j", SHAPES, {}),
    (f"y[b,p,q,j] = {CONVOLUTION} + R[b,p-1,q,j]", {**SHAPES, "R": (2, 9, 8, 37)}, {"p": 9}),
    (f"y[b,p,q,j] = {CONVOLUTION} + R[b,j,p,q]", {**SHAPES, "R": (2, 37, 9, 8)}, {}),
    # The groups move the rows as well.
    ("y[b,p,q,g] = sum[u](W[u,g] * x[b,p+u,q+g,g])", {"x": (1, 5, 16, 8), "W": (3, 8)}, {"q": 9}),
]


@pytest.mark.parametrize("schedule", [direct, grouped], ids=lambda s: s.name)
@pytest.mark.parametrize(("text", "shapes", "sizes"), REFUSED, ids=[e[0] for e in REFUSED])
def test_refused(
    schedule: object, text: str, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int]
) -> None:
    assert schedule.seconds(statement(text, shapes, **sizes), Target.named("avx512")) is None


@pytest.mark.skipif(not {"avx512", "avx2"} <= set(RUNNABLE), reason="needs AVX-512 and AVX2")
@pytest.mark.parametrize(
    ("schedule", "text", "shapes"),
    [
        (direct, f"y[b,p,q,j] = relu({CONVOLUTION} + B[j])", {**SHAPES, "B": (37,)}),
        (
            grouped,
            "y[b,p,q,4*g+j] = sum[u,v,i](W[u,v,i,4*g+j] * x[b,p+u-1,q+v-1,4*g+i])",
            {"x": (2, 9, 8, 20), "W": (3, 3, 4, 20)},
        ),
    ],
)
def test_bits_depend_neither_on_tiles_nor_on_vectors(
    schedule: object, text: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    sizes = {"g": 5, "j": 4} if schedule is grouped else {}
    stated = statement(text, shapes, **sizes)
    operands = operands_for(stated)
    expected = run(schedule, stated, operands, "avx512")
    np.testing.assert_array_equal(run(schedule, stated, operands, "avx2"), expected)
    one = statement(text, {**shapes, "x": (1, *shapes["x"][1:])}, **sizes)
    for k in range(2):
        part = {**operands, "x": operands["x"][k : k + 1]}
        np.testing.assert_array_equal(run(schedule, one, part, "avx512"), expected[k : k + 1])


@pytest.mark.parametrize(
    ("features", "lanes"), [(8, 8), (16, 16), (24, 8), (40, 8), (56, 8), (58, 16), (232, 16)]
)
def test_half_vectors_where_they_waste_less(features: int, lanes: int) -> None:
    """24 features are three half vectors; 232 would be 29 of them, a prime that no tile divides."""
    stated = statement(
        "y[b,p,q,j] = sum[i](W[i,j] * x[b,p,q,i])", {"x": (1, 56, 56, 96), "W": (96, features)}
    )
    plain = replace(Target.named("avx512"), halved=False)
    for target, expected in ((plain, 16), (replace(plain, halved=True), lanes)):
        assert f"vectors of {expected};" in emit(direct, stated, target)[1].plan
    operands = operands_for(stated)
    if "avx512" in RUNNABLE:
        whole = run(direct, stated, operands, plain)
        np.testing.assert_array_equal(
            run(direct, stated, operands, replace(plain, halved=True)), whole
        )


def test_large_work_is_cut_into_chunks() -> None:
    target = Target.named("avx512")
    large = statement(
        "y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,p+u-1,q+v-1,i])",
        {"x": (1, 56, 56, 64), "W": (3, 3, 64, 64)},
    )
    assert emit(direct, large, target)[1].chunks >= 8
    wide = statement("y[b,j] = sum[i](W[i,j] * x[b,i])", {"x": (1, 512), "W": (512, 1000)})
    assert emit(direct, wide, target)[1].chunks >= 8
    depthwise = statement(
        "y[b,p,q,g] = sum[u,v](W[u,v,g] * x[b,p+u-1,q+v-1,g])",
        {"x": (1, 56, 56, 64), "W": (3, 3, 64)},
    )
    assert emit(grouped, depthwise, target)[1].chunks >= 8


@pytest.mark.parametrize("width", [1, 2])
def test_neon_assembly(width: int) -> None:
    target = Target.named("neon")
    whole = statement(f"y[b,p,q,j] = relu({CONVOLUTION})", SHAPES)
    groups = statement(
        f"y[b,p,q,{width}*g+j] = sum[u,v,i](W[u,v,i,{width}*g+j] * x[b,p+u-1,q+v-1,{width}*g+i])",
        {"x": (1, 9, 8, 20), "W": (3, 3, width, 20)},
        g=20 // width,
        j=width,
    )
    for schedule, stated in ((direct, whole), (grouped, groups)):
        assert schedule.seconds(stated, target) is not None
        assert "fmla" in assembly(emit(schedule, stated, target)[1].write().function("k"), target)
