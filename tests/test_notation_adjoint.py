"""Gradients: finite differences, the adjoint identity, and what the derived equations say."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from striate.notation import adjoint, interpret, parse, resolve, to_text
from striate.notation.ir import Shape, Statement

Numbers = NDArray[np.float64]

CONVOLUTION = "sum[u,v,i](W[u,v,i,j] * x[b, s*p+d*u-a, t*q+e*v-c, i])"
GROUPED = "sum[u,v,i](W[u,v,i,N*g+j] * x[b, s*p+d*u-a, t*q+e*v-c, M*g+i])"
WINDOW = "[u,v](x[b, 2*p+u-1, 3*q+2*v-1, i])"
NORM = (
    "y[b,p,q,i] = (x[b,p,q,i] - mean[c,r,s](x[c,r,s,i]))"
    " / sqrt(mean[c,r,s]((x[c,r,s,i] - mean[d,t,u](x[d,t,u,i]))**2) + e) * gamma[i] + beta[i]"
)
LOG_SUM = "log(sum[j](exp(x[b,j] - max[k](x[b,k])))) + max[k](x[b,k])"
SQUARES = "sum[k](x[b,p,q,i+k-2]**2)"


def statement_of(
    text: str, shapes: dict[str, Shape], sizes: dict[str, int] | None = None, **constants: Any
) -> Statement:
    """The statement, in ceil mode where `ceil_mode` is among the constants."""
    ceil_mode = constants.pop("ceil_mode", False)
    return resolve(parse(text, sizes=sizes, **constants), shapes, ceil_mode=ceil_mode)


def gradient(statement: Statement, operand: str, operands: dict[str, Numbers], d: Numbers) -> Any:
    """The gradient with respect to `operand` by the derived equation."""
    derived = adjoint(statement, operand)
    output = statement.equation.output.tensor
    given = operands | {output: interpret(statement, operands), f"d_{output}": d}
    result = interpret(derived, {name: given[name] for name, _ in derived.shapes})
    assert result.shape == np.shape(operands[operand])
    return result


def differences(
    statement: Statement, operand: str, operands: dict[str, Numbers], d: Numbers
) -> Numbers:
    """The same gradient by central differences."""
    result = np.zeros(np.shape(operands[operand]))
    step = 1e-6
    for place in np.ndindex(*result.shape):
        sides = []
        for sign in (1, -1):
            moved = operands[operand].copy()
            moved[place] += sign * step
            sides.append(interpret(statement, operands | {operand: moved}))
        result[place] = np.sum((sides[0] - sides[1]) * d) / (2 * step)
    return result


def check(statement: Statement, fixed: dict[str, Numbers] | None = None) -> None:
    """All gradients of a statement at random operands against differences."""
    rng = np.random.default_rng(7)
    operands = {name: rng.uniform(0.2, 1.5, shape) for name, shape in statement.shapes}
    for name, array in operands.items():
        if name == "x":
            operands[name] = array * rng.choice([-1, 1], array.shape)
    operands |= fixed or {}
    d = np.asarray(rng.standard_normal(statement.shape))
    for name in operands:
        if name in (fixed or {}):
            continue
        derived = gradient(statement, name, operands, d)
        np.testing.assert_allclose(
            derived, differences(statement, name, operands, d), rtol=1e-6, atol=1e-7
        )
        check_text(adjoint(statement, name))


def check_text(derived: Statement) -> None:
    """A derived equation prints, reads back, and finds its sizes again."""
    again = parse(to_text(derived.equation), sizes=dict(derived.equation.sizes))
    assert again == derived.equation
    assert resolve(again, dict(derived.shapes)) == derived


CASES: dict[str, tuple[str, dict[str, Shape], dict[str, int], dict[str, Any]]] = {
    "convolution": (
        f"y[b,p,q,j] = relu({CONVOLUTION} + B[j])",
        {"W": (3, 2, 2, 3), "x": (2, 5, 4, 2), "B": (3,)},
        {},
        {"s": 1, "t": 1, "d": 1, "e": 1, "a": 1, "c": 0},
    ),
    "strided, dilated, padded": (
        f"y[b,p,q,j] = {CONVOLUTION} + B[j]",
        {"W": (2, 3, 2, 2), "x": (1, 7, 6, 2), "B": (2,)},
        {},
        {"s": 3, "t": 2, "d": 2, "e": 1, "a": 2, "c": 1},
    ),
    "stride and dilation with a common factor": (
        f"y[b,p,q,j] = {CONVOLUTION}",
        {"W": (3, 3, 1, 2), "x": (1, 7, 6, 1)},
        {},
        {"s": 2, "t": 4, "d": 2, "e": 2, "a": 2, "c": 1},
    ),
    "rows that no window reads": (
        f"y[b,p,q,j] = {CONVOLUTION}",
        {"W": (1, 2, 1, 2), "x": (1, 6, 6, 1)},
        {},
        {"s": 4, "t": 3, "d": 1, "e": 1, "a": 0, "c": 0},
    ),
    "grouped": (
        f"y[b,p,q,N*g+j] = clip({GROUPED} + B[N*g+j], 0, 1.5)",
        {"W": (2, 2, 3, 4), "x": (1, 3, 4, 6), "B": (4,)},
        {},
        {"s": 2, "t": 1, "d": 1, "e": 2, "a": 1, "c": 1, "N": 2, "M": 3},
    ),
    "depthwise": (
        "y[b,p,q,g] = sum[u,v](W[u,v,0,g] * x[b,2*p+u-1,2*q+v-1,g])",
        {"W": (3, 3, 1, 4), "x": (1, 3, 4, 4)},
        {},
        {},
    ),
    "locally connected": (
        "y[p,q,j] = sum[u,i](W[p,q,u,i,j] * x[p+u,q,i])",
        {"W": (3, 2, 2, 2, 2), "x": (4, 2, 2)},
        {},
        {},
    ),
    "max pooling": (f"y[b,p,q,i] = max{WINDOW}", {"x": (1, 5, 6, 2)}, {"u": 3, "v": 2}, {}),
    "ceil mode": (
        f"y[b,p,q,i] = max{WINDOW}",
        {"x": (1, 6, 7, 1)},
        {"u": 3, "v": 2},
        {"ceil_mode": True},
    ),
    "average pooling": (f"y[b,p,q,i] = mean{WINDOW}", {"x": (1, 5, 6, 2)}, {"u": 3, "v": 2}, {}),
    "padding counted": (
        f"y[b,p,q,i] = sum{WINDOW} / 6",
        {"x": (1, 5, 6, 2)},
        {"u": 3, "v": 2},
        {"ceil_mode": True},
    ),
    "min pooling": (f"y[b,p,q,i] = min{WINDOW}", {"x": (1, 5, 6, 1)}, {"u": 3, "v": 2}, {}),
    "products": (f"y[b,p,q,i] = prod{WINDOW}", {"x": (1, 5, 5, 1)}, {"u": 3, "v": 2}, {}),
    "global pooling": ("y[b,i] = mean[p,q](x[b,p,q,i])", {"x": (2, 2, 3, 2)}, {}, {}),
    "adaptive pooling": (
        "y[b,p] = mean[u](where(3*u < 5*p+5, x[b,(5*p+3*u)//3], 0))",
        {"x": (2, 5)},
        {"p": 3, "u": 2},
        {},
    ),
    "maximum of products": (
        "y[b,i] = max[p,q](x[b,p,q,i] * w[p])",
        {"x": (2, 2, 3, 2), "w": (2,)},
        {},
        {},
    ),
    "linear": (
        "y[b,j] = relu(sum[i](W[i,j] * x[b,i]) + B[j])",
        {"W": (3, 4), "x": (2, 3), "B": (4,)},
        {},
        {},
    ),
    "batch norm": (NORM, {"x": (2, 2, 3, 2), "gamma": (2,), "beta": (2,)}, {}, {"e": 1e-3}),
    "softmax": ("y[b,j] = exp(x[b,j]) / sum[k](exp(x[b,k]))", {"x": (2, 4)}, {}, {}),
    "soft labels": (
        "l[()] = -mean[b](sum[j](t[b,j] * (x[b,j] - log(sum[k](exp(x[b,k]))))))",
        {"x": (3, 4), "t": (3, 4)},
        {},
        {},
    ),
    "local response norm": (
        f"y[b,p,q,i] = x[b,p,q,i] / (2 + 0.1 * {SQUARES})**0.75",
        {"x": (1, 2, 1, 6)},
        {"k": 5},
        {},
    ),
    "channel shuffle": ("y[b,3*i+g] = x[b,2*g+i]", {"x": (2, 6)}, {"g": 3}, {}),
    "flatten": ("y[b,6*i+3*p+q] = x[b,p,q,i]", {"x": (2, 2, 3, 4)}, {}, {}),
    "im2col": ("z[b,p,u,i] = x[b,2*p+u-1,i]", {"x": (1, 7, 2)}, {"u": 3}, {}),
    "repeated pixels": ("y[b,p,q] = x[b,p//2,(q+1)//3]", {"x": (1, 3, 2)}, {"q": 5}, {}),
    "transposed convolution": (
        "y[p] = sum[u](W[u] * x[(p-u+1)/2])",
        {"W": (3,), "x": (4,)},
        {"p": 7},
        {},
    ),
    "concatenation": ("y[p] = x[p] + z[p-3]", {"x": (3,), "z": (4,)}, {"p": 7}, {}),
    "crop": ("y[p] = x[p+1]**2", {"x": (7,)}, {"p": 3}, {}),
    "turned around": ("y[p] = x[3-p] * x[p]", {"x": (4,)}, {}, {}),
    "diagonal": ("y[p] = x[p,p] * 2", {"x": (3, 3)}, {}, {}),
    "one column": ("y[p] = x[p,0] * 2", {"x": (3, 3)}, {}, {}),
    "slanted": ("y[p,q] = x[p+q,q]", {"x": (4, 3)}, {"p": 2}, {}),
    "summed windows": ("y[b] = mean[p,u](x[b,2*p+u])", {"x": (2, 7)}, {"p": 3, "u": 3}, {}),
    "one tensor twice": ("y[p] = sum[q](x[p,q] * x[q,p])", {"x": (3, 3)}, {}, {}),
    "outside, outside any reduction": (
        "y[p] = x[p-1] * exp(z[p+1]) + 3",
        {"x": (5,), "z": (5,)},
        {"p": 6},
        {},
    ),
    "outside, then inside a reduction": (
        "y[p,j] = x[p,j] * exp(z[p-1])",
        {"x": (4, 3), "z": (4,)},
        {},
        {},
    ),
    "left out together": (
        "y[p] = sum[u](x[p+u-1] + z[p+u-2])",
        {"x": (5,), "z": (5,)},
        {"p": 5, "u": 3},
        {},
    ),
    "counted together": (
        "y[p] = mean[u](x[p+u-1] + z[p+u-2] * w[u])",
        {"x": (5,), "z": (5,), "w": (3,)},
        {"p": 5},
        {},
    ),
    "nested in what is left out": (
        "y[p] = sum[u](exp(x[u-1]) * mean[c](z[c,u])) + w[p]",
        {"x": (3,), "z": (2, 4), "w": (3,)},
        {},
        {},
    ),
    "a sum inside a sum": (
        "y[p] = sum[u](W[u] * tanh(sum[v](V[v] * x[p+u+v-2])))",
        {"W": (2,), "V": (3,), "x": (5,)},
        {},
        {},
    ),
    "mixed scopes": (
        "y[p,q] = x[p] * log(sum[r](exp(x[r] * z[q,r]))) / sqrt(mean[r](z[q,r]))",
        {"x": (3,), "z": (2, 3)},
        {},
        {},
    ),
    "windows under a coarser weight": (
        "y[b] = sum[t,u](x[b,2*t+u] * w[t//2])",
        {"x": (2, 7), "w": (2,)},
        {"t": 3, "u": 3},
        {},
    ),
    "windows under a finer weight": (
        "y[()] = sum[t,u,g](x[2*t+u] * w[2*t+g])",
        {"x": (7,), "w": (6,)},
        {"t": 3, "u": 3, "g": 2},
        {},
    ),
    "windows under a longer weight": (
        "y[()] = sum[t,u](x[2*t+u] * w[t])",
        {"x": (9,), "w": (5,)},
        {"t": 3, "u": 3},
        {},
    ),
    "two orders of one axis": (
        "y[p,q] = x[3*p+q] * x[2*q+p]",
        {"x": (6,)},
        {"p": 2, "q": 3},
        {},
    ),
    "two strides": (
        "y[p,q] = sum[u,v](x[2*p+u,3*q+v] * z[p+q])",
        {"x": (5, 8), "z": (3,)},
        {"u": 2, "v": 2},
        {},
    ),
    "two rates": ("y[p] = x[p//2] * x[p//3]", {"x": (3,)}, {"p": 6}, {}),
    "added to what is left out": (
        "y[()] = sum[u](x[u-1] + mean[c](z[c,u]))",
        {"x": (3,), "z": (2, 4)},
        {},
        {},
    ),
    "positions": ("y[p] = sum[u](x[p+u] * (p - 2*u)) * p", {"x": (5,)}, {"u": 2}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    text, shapes, sizes, constants = CASES[name]
    check(statement_of(text, shapes, sizes, **constants))


@pytest.mark.parametrize(
    "body",
    [
        "x[p] + z[p] - 2*x[p]",
        "x[p] * z[p] / (x[p] + 3)",
        "-x[p] / z[p]",
        "maximum(x[p], z[p])",
        "minimum(x[p], z[p] - 0.6)",
        "relu(x[p]) * z[p]",
        "clip(x[p], z[p] - 1.2, 1)",
        "clip(0.1, x[p], z[p] - 0.5)",
        "exp(x[p]) * log(z[p])",
        "sqrt(z[p]) * tanh(x[p])",
        "sigmoid(x[p]) / z[p]",
        "sigmoid(x[p] + z[p])",
        "tanh(x[p] * z[p])",
        "abs(x[p]) * z[p]**1.7",
        "where(x[p] < 0, z[p] * x[p], -x[p]**3)",
        "where(x[p] < z[p], x[p], 2*z[p]) * (x[p] <= 0.3)",
        "x[p]**4 + (x[p] == z[p]) + (x[p] != z[p])",
    ],
)
def test_functions(body: str) -> None:
    check(statement_of(f"y[p] = {body} + 0*z[p]", {"x": (9,), "z": (9,)}))


def test_cross_entropy_with_labels() -> None:
    chosen = "sum[j](where(j == t[b], x[b,j], 0))"
    statement = statement_of(f"l[()] = mean[b]({LOG_SUM} - {chosen})", {"x": (3, 4), "t": (3,)})
    labels = np.array([0.0, 3, 1])
    check(statement, {"t": labels})
    x = np.random.default_rng(0).standard_normal((3, 4))
    operands = {"x": x, "t": labels}
    softmax = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    expected = (softmax - np.eye(4)[labels.astype(int)]) / 3
    np.testing.assert_allclose(
        gradient(statement, "x", operands, np.ones(())), expected, rtol=1e-12, atol=1e-15
    )
    np.testing.assert_array_equal(gradient(statement, "t", operands, np.ones(())), np.zeros(3))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3)),
)
def test_adjoint_identity(
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    features: tuple[int, int, int],
) -> None:
    """<v, A x> == <A* v, x>, for a convolution as a linear map of its image and of its kernel."""
    for axis in range(2):
        assume(image[axis] + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1))
    groups, inputs, outputs = features
    rng = np.random.default_rng(3)
    operands = {
        "W": rng.standard_normal((*kernel, inputs, groups * outputs)),
        "x": rng.standard_normal((2, *image, groups * inputs)),
    }
    (s, t), (d, e), (a, c) = stride, dilation, padding
    statement = statement_of(
        f"y[b,p,q,N*g+j] = {GROUPED}",
        {name: array.shape for name, array in operands.items()},
        s=s, t=t, d=d, e=e, a=a, c=c, N=outputs, M=inputs,
    )  # fmt: skip
    v = rng.standard_normal(statement.shape)
    forward = np.sum(v * interpret(statement, operands))
    for name, array in operands.items():
        backward = np.sum(gradient(statement, name, operands, v) * array)
        np.testing.assert_allclose(backward, forward, rtol=1e-10, atol=1e-10)
        check_text(adjoint(statement, name))


def test_the_gradient_of_a_gradient() -> None:
    statement = statement_of(
        f"y[b,p,q,j] = {CONVOLUTION}",
        {"W": (3, 3, 1, 2), "x": (1, 6, 5, 1)},
        s=2, t=1, d=1, e=2, a=1, c=1,
    )  # fmt: skip
    # The adjoint of the adjoint of a linear map is the map.
    twice = adjoint(adjoint(statement, "x"), "d_y")
    rng = np.random.default_rng(1)
    operands = {name: rng.standard_normal(shape) for name, shape in statement.shapes}
    again = interpret(twice, {"W": operands["W"], "d_d_x": operands["x"]})
    np.testing.assert_allclose(again, interpret(statement, operands), rtol=1e-12)
    check(adjoint(statement_of("y[p] = tanh(x[p]) * x[p]", {"x": (4,)}), "x"))


def test_a_maximum_is_found_again_in_single_precision() -> None:
    statement = statement_of("y[b] = max[i](x[b,i] * w[i])", {"x": (50, 3), "w": (3,)})
    rng = np.random.default_rng(5)
    operands = {"x": rng.standard_normal((50, 3)), "w": rng.uniform(0.5, 1, 3)}
    single: Any = {name: array.astype(np.float32) for name, array in operands.items()}
    result = gradient(statement, "x", single, np.ones(50, np.float32))
    assert (np.count_nonzero(result, axis=1) == 1).all()


def test_ties_share_evenly() -> None:
    statement = statement_of("y[p] = max[u](x[2*p+u])", {"x": (6,)}, {"u": 2})
    x = np.array([1.0, 1, 2, 3, 0, 0])
    result = gradient(statement, "x", {"x": x}, np.array([4.0, 6, 8]))
    np.testing.assert_array_equal(result, [2, 2, 0, 6, 4, 4])
    both = statement_of("y[p] = maximum(x[p], z[p])", {"x": (2,), "z": (2,)})
    operands = {"x": np.array([1.0, 2]), "z": np.array([1.0, 1])}
    np.testing.assert_array_equal(gradient(both, "x", operands, np.array([4.0, 6])), [2, 6])
    np.testing.assert_array_equal(gradient(both, "z", operands, np.array([4.0, 6])), [2, 0])


@pytest.mark.parametrize(
    ("text", "shapes", "operand", "constants", "expected"),
    [
        (
            f"y[b,p,q,j] = {CONVOLUTION}",
            {"W": (3, 3, 2, 2), "x": (1, 8, 9, 2)},
            "x",
            {"s": 2, "t": 1, "d": 1, "e": 1, "a": 1, "c": 0},
            "d_x[b,m,n,i] = sum[u,v,j](d_y[b, (m-u+1)/2, n-v, j] * W[u,v,i,j])",
        ),
        (
            f"y[b,p,q,j] = {CONVOLUTION}",
            {"W": (3, 3, 2, 2), "x": (1, 8, 9, 2)},
            "W",
            {"s": 2, "t": 1, "d": 1, "e": 1, "a": 1, "c": 0},
            "d_W[u,v,i,j] = sum[b,p,q](d_y[b,p,q,j] * x[b, 2*p+u-1, q+v, i])",
        ),
        (
            "y[b,p,G*i+g] = x[b,p,N*g+i]",
            {"x": (1, 2, 6)},
            "x",
            {"G": 2, "N": 3, "sizes": {"g": 2}},
            "d_x[b, p, 3*g+i] = d_y[b, p, 2*i+g]",
        ),
        (
            "y[b,i] = mean[p,q](relu(x[b,p,q,i]))",
            {"x": (1, 2, 3, 4)},
            "x",
            {},
            "d_x[b,p,q,i] = where(0 < relu(x[b,p,q,i]), d_y[b,i] / 6, 0)",
        ),
        (
            "y[b,i] = relu(x[b,i] + B[i])",
            {"x": (2, 3), "B": (3,)},
            "B",
            {},
            "d_B[i] = sum[b](where(0 < y[b,i], d_y[b,i], 0))",
        ),
        (
            "y[p] = x[p//2]",
            {"x": (3,)},
            "x",
            {},
            "d_x[m] = sum[r](d_y[2*m+r])",
        ),
        ("y[p] = sum[u](x[p+u] < 1)", {"x": (3,)}, "x", {"sizes": {"u": 2}}, "d_x[m] = 0"),
    ],
)
def test_what_gradients_look_like(
    text: str, shapes: dict[str, Shape], operand: str, constants: dict[str, Any], expected: str
) -> None:
    derived = adjoint(statement_of(text, shapes, **constants), operand)
    assert to_text(derived.equation) == expected
    assert derived.shape == shapes[operand]
