"""The generic loop nest computes what the interpreter says, for any equation and layout."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import RUNNABLE, check, code, emit, operands_for, run, sliced, statement

from striate.compiler.codegen import assembly
from striate.compiler.layout import Layout
from striate.compiler.schedules import chunks, generic
from striate.compiler.target import Target
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Equation,
    Expression,
    Position,
    Read,
    Reduce,
    Statement,
)

Shapes = dict[str, tuple[int, ...]]

EQUATIONS: list[tuple[str, Shapes, dict[str, int]]] = [
    ("y[b,p,q,i] = relu(x[b,p,q,i] + z[b,p,q,i])", {"x": (2, 5, 3, 17), "z": (2, 5, 3, 17)}, {}),
    ("y[b,p,q,i] = x[b,p,q,i] * s[i] + t[i]", {"x": (2, 5, 3, 17), "s": (17,), "t": (17,)}, {}),
    ("y[b,p,q,i] = x[b,i,p,q]", {"x": (2, 3, 7, 5)}, {}),
    ("y[b,p,q,i] = x[b,i,p,q]", {"x": (2, 33, 7, 5)}, {}),
    ("y[b,i,p,q] = x[b,p,q,i]", {"x": (2, 7, 5, 33)}, {}),
    ("y[b,p,q,2*i+g] = x[b,p,q,58*g+i]", {"x": (1, 3, 4, 116)}, {"i": 58, "g": 2}),
    ("y[b,p,q,3*i+g] = x[b,p,q,17*g+i]", {"x": (2, 3, 4, 51)}, {"i": 17, "g": 3}),
    ("y[b,36*i+6*p+q] = x[b,p,q,i]", {"x": (2, 6, 6, 5)}, {}),
    ("y[b,j] = exp(x[b,j]) / sum[k](exp(x[b,k]))", {"x": (3, 21)}, {}),
    (
        "y[b,j] = exp(x[b,j] - max[k](x[b,k])) / sum[k](exp(x[b,k] - max[m](x[b,m])))",
        {"x": (2, 53)},
        {},
    ),
    (
        "y[b] = mean[i]((x[b,i] - mean[k](x[b,k])) * (x[b,i] - mean[k](x[b,k])))",
        {"x": (3, 14)},
        {},
    ),
    ("y[b,p,q,i] = max[u,v](x[b,2*p+u-1,2*q+v-1,i])", {"x": (2, 9, 8, 5)}, {"u": 3, "v": 3}),
    ("y[i] = mean[u](x[i+u-2])", {"x": (50,)}, {"u": 5}),
    ("y[i] = prod[u](x[i-u+2])", {"x": (50,)}, {"u": 5}),
    ("y[i] = min[u](x[2-i+u])", {"x": (50,)}, {"u": 60, "i": 20}),
    ("h[b,p,q,i] = L[b,p//3,q//2,i]", {"L": (2, 3, 4, 5)}, {}),
    ("y[p] = x[p//3]", {"x": (40,)}, {}),
    ("y[p] = x[(p-3)//2]", {"x": (40,)}, {"p": 90}),
    ("y[p] = x[(p+1)/2]", {"x": (40,)}, {"p": 85}),
    ("y[p] = sum[u](W[u] * x[(p-u+1)/2])", {"x": (40,), "W": (3,)}, {"p": 80}),
    ("y[p,i] = sum[u](W[u] * x[(p-u+1)/2,i])", {"x": (10, 6), "W": (3,)}, {"p": 20}),
    ("y[p] = mean[u](x[(p-u+1)/2])", {"x": (40,)}, {"u": 3, "p": 80}),
    ("y[()] = sum[i](x[i] * x[i])", {"x": (40,)}, {}),
    ("y[()] = 3", {}, {}),
    ("y[i] = i", {}, {"i": 37}),
    ("y[p,i] = x[p-1,i] + i * p", {"x": (7, 20)}, {"p": 9}),
    ("y[b,p,q,i] = x[b,p-1,q-2,i]", {"x": (1, 3, 4, 19)}, {"p": 5, "q": 8}),
    ("z[b,p,q,u,v,i] = x[b,p+u-1,q+v-1,i]", {"x": (1, 4, 5, 3)}, {"u": 3, "v": 3}),
    ("packed[k,u,i,l] = W[u,i,32*k+l]", {"W": (3, 5, 70)}, {"l": 32, "k": 3}),
    ("y[i,j] = sum[k](x[i,k] * w[j,k])", {"x": (5, 7), "w": (9, 7)}, {}),
    ("y[i] = sum[k](max[j](x[i+j-1,k]) * sum[j](x[j,k]))", {"x": (19, 4)}, {"j": 3}),
    ("y[p,q,j] = sum[u,v](W[p,q,u,v,j] * x[p+u,q+v])", {"x": (5, 6), "W": (3, 4, 3, 3, 5)}, {}),
    ("y[i] = where(x[i] < 0, 0.25 * x[i], clip(x[i], 0.1, 0.5))", {"x": (33,)}, {}),
    ("y[b,j] = x[b,j] / sqrt(1 + 2 * sum[k](x[b,j+k-2] * x[b,j+k-2]))", {"x": (2, 40)}, {"k": 5}),
]


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize(("text", "shapes", "sizes"), EQUATIONS, ids=[e[0] for e in EQUATIONS])
def test_equation(text: str, shapes: Shapes, sizes: dict[str, int], target: str) -> None:
    check(generic, statement(text, shapes, **sizes), target)


targets = st.sampled_from(RUNNABLE)
# Sizes around the lanes of every target, primes, and one.
sizes_of_lanes = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 33, 64, 67])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_convolution(data: st.DataObject) -> None:
    draw = data.draw
    s, t, d, e = (draw(st.integers(1, 3), label) for label in "stde")
    u, v = draw(st.integers(1, 3), "u"), draw(st.integers(1, 3), "v")
    a, c = draw(st.integers(0, 3), "a"), draw(st.integers(0, 3), "c")
    rows = draw(st.integers(max(1, d * (u - 1) + 1 - 2 * a), 11), "rows")
    columns = draw(st.integers(max(1, e * (v - 1) + 1 - 2 * c), 11), "columns")
    i, j = draw(st.integers(1, 4), "i"), draw(sizes_of_lanes, "j")
    stated = statement(
        "y[b,p,q,j] = relu(sum[u,v,i](W[u,v,i,j] * x[b,"
        f"{s}*p+{d}*u-{a},{t}*q+{e}*v-{c},i]) + B[j])",
        {"x": (2, rows, columns, i), "W": (u, v, i, j), "B": (j,)},
    )
    with patch.object(chunks, "ONE_CHUNK", draw(st.sampled_from([-1.0, 1.0]), "one chunk")):
        check(generic, stated, draw(targets, "target"))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_elementwise_on_any_layout(data: st.DataObject) -> None:
    draw = data.draw
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 5)),
        draw(sizes_of_lanes),
    )

    def layout() -> Layout:
        halo = draw(st.tuples(*[st.integers(0, 2)] * 4))
        kinds = [Layout.dense(shape), Layout.padded(shape, halo), sliced(shape, 0, 3)]
        return draw(st.sampled_from(kinds))

    stated = statement(
        "y[b,p,q,i] = relu(x[b,p,q,i] * s[i] + z[b,p,q,i])",
        {"x": shape, "s": shape[-1:], "z": shape},
    )
    with patch.object(chunks, "ONE_CHUNK", draw(st.sampled_from([-1.0, 1.0]), "one chunk")):
        check(generic, stated, draw(targets), {name: layout() for name in ("x", "y", "z")})


@st.composite
def affines(draw: st.DrawFn, indices: list[str]) -> Affine:
    used = draw(st.lists(st.sampled_from(indices), max_size=2, unique=True)) if indices else []
    steps = st.sampled_from([1, 1, 1, 2, 3, -1])
    divisor = draw(st.sampled_from([1, 1, 1, 2, 3]))
    exact = divisor > 1 and draw(st.booleans())
    terms = tuple((index, draw(steps)) for index in used)
    return Affine(terms, draw(st.integers(-3, 3)), divisor, exact)


@st.composite
def expressions(
    draw: st.DrawFn, open_indices: list[str], free: list[str], depth: int
) -> Expression:
    """Random expressions of the operands x, z and w, of one, two and three axes."""
    kinds = ["read", "read", "constant", "position"]
    kinds += ["apply", "apply"] * (depth > 0) + ["reduce", "reduce"] * bool(depth > 0 and free)
    match draw(st.sampled_from(kinds)):
        case "apply":
            function = draw(st.sampled_from(["add", "subtract", "multiply", "maximum", "less"]))
            parts = [draw(expressions(open_indices, free, depth - 1)) for _ in range(2)]
            return Apply(function, tuple(parts))
        case "reduce":
            count = draw(st.integers(1, len(free)))
            kind = draw(st.sampled_from(["sum", "mean", "max", "min", "prod"]))
            inside = [*open_indices, *free[:count]]
            body = draw(expressions(inside, free[count:], depth - 1))
            return Reduce(kind, tuple(free[:count]), body)
        case "constant":
            return Constant(draw(st.sampled_from([0.5, -1.0, 2.0])))
        case "position":
            return Position(draw(st.sampled_from(open_indices)))
    rank = draw(st.integers(1, 3))
    return Read("xzw"[rank - 1], tuple(draw(affines(open_indices)) for _ in range(rank)))


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Random statements: extents, a permuted output, and an expression."""
    outer = draw(st.lists(st.sampled_from("pqi"), min_size=1, max_size=3, unique=True))
    extents = {index: draw(st.sampled_from([1, 2, 3, 5, 8, 17])) for index in outer}
    extents |= {index: draw(st.integers(1, 4)) for index in "uv"}
    expression = draw(expressions(outer, ["u", "v"], 3))
    order = draw(st.permutations(outer))
    output = Read("y", tuple(Affine(((index, 1),)) for index in order))
    shapes = {"x": (7,), "z": (4, 5), "w": (2, 3, 9)}
    return Statement(
        Equation(output, expression),
        tuple(shapes.items()),
        tuple(extents.items()),
        tuple(extents[index] for index in order),
    )


@settings(max_examples=60, deadline=None)
@given(statements(), targets, st.sampled_from([-1.0, 1.0]))
def test_random_statement(stated: Statement, target: str, one_chunk: float) -> None:
    with patch.object(chunks, "ONE_CHUNK", one_chunk):
        check(generic, stated, target)


@pytest.mark.skipif(not {"avx512", "avx2"} <= set(RUNNABLE), reason="needs AVX-512 and AVX2")
def test_bits_do_not_depend_on_vector_width_or_chunks() -> None:
    stated = statement(
        "y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b,p+u-1,q+v-1,i])",
        {"x": (1, 9, 9, 5), "W": (3, 3, 5, 37)},
    )
    operands = operands_for(stated)
    expected = run(generic, stated, operands, "avx512")
    np.testing.assert_array_equal(run(generic, stated, operands, "avx2"), expected)
    with patch.object(chunks, "ONE_CHUNK", -1.0):
        np.testing.assert_array_equal(run(generic, stated, operands, "avx512"), expected)


def test_large_work_is_cut_into_chunks() -> None:
    large = statement("y[b,p,q,i] = x[b,p,q,i] + 1", {"x": (1, 112, 112, 96)})
    small = statement("y[b,i] = x[b,i] + 1", {"x": (1, 1000)})
    target = Target.named("generic")
    assert 8 <= emit(generic, large, target)[1].chunks <= 24
    assert emit(generic, small, target)[1].chunks == 1


def test_neon_assembly() -> None:
    stated = statement("y[b,j] = sum[i](W[i,j] * x[b,i])", {"x": (3, 7), "W": (7, 33)})
    target = Target.named("neon")
    assert "fmla" in assembly(code(emit(generic, stated, target)[1]), target)
