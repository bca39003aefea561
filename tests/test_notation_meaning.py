"""What equations mean: the interpreter and the window rule against loops written out by hand."""

import itertools
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from striate.notation import interpret, parse, resolve

Numbers = NDArray[np.float64]

GROUPED = (
    "y[b,p,q,N*g+j] = sum[u,v,i](W[u,v,i,N*g+j] * x[b, s*p+d*u-a, t*q+e*v-c, M*g+i]) + B[N*g+j]"
)
WINDOW = "[u,v](x[b, s*p+d*u-a, s*q+d*v-a, i])"


def run(
    text: str,
    operands: dict[str, Numbers],
    sizes: dict[str, int] | None = None,
    ceil_mode: bool = False,
    **constants: int | float,
) -> Numbers:
    """The value of an equation."""
    shapes = {name: array.shape for name, array in operands.items()}
    statement = resolve(parse(text, **constants), shapes, sizes=sizes, ceil_mode=ceil_mode)
    result = interpret(statement, operands)
    assert result.shape == statement.shape
    return result


def normal(*shape: int, seed: int = 0) -> Numbers:
    return np.random.default_rng(seed).standard_normal(shape)


def convolution(
    x: Numbers,
    w: Numbers,
    bias: Numbers,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Numbers:
    """Grouped convolution in plain loops over a padded copy."""
    batch, height, width, _ = x.shape
    kernel_x, kernel_y, inputs, features = w.shape
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    rows = (height + 2 * padding[0] - dilation[0] * (kernel_x - 1) - 1) // stride[0] + 1
    columns = (width + 2 * padding[1] - dilation[1] * (kernel_y - 1) - 1) // stride[1] + 1
    y = np.zeros((batch, rows, columns, features))
    for b, p, q, j in itertools.product(*map(range, y.shape)):
        group = j // (features // groups)
        total = bias[j]
        for u, v, i in itertools.product(range(kernel_x), range(kernel_y), range(inputs)):
            row, column = stride[0] * p + dilation[0] * u, stride[1] * q + dilation[1] * v
            total += w[u, v, i, j] * padded[b, row, column, group * inputs + i]
        y[b, p, q, j] = total
    return y


pairs = st.tuples


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2),
    pairs(st.integers(1, 7), st.integers(1, 7)),
    pairs(st.integers(1, 3), st.integers(1, 3)),
    pairs(st.integers(1, 3), st.integers(1, 3)),
    pairs(st.integers(0, 2), st.integers(0, 2)),
    pairs(st.integers(1, 2), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
)
def test_convolution(
    batch: int,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    features: tuple[int, int, int],
) -> None:
    for axis in range(2):
        assume(image[axis] + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1))
    groups, inputs, outputs = features
    x = normal(batch, *image, groups * inputs)
    w = normal(*kernel, inputs, groups * outputs, seed=1)
    bias = normal(groups * outputs, seed=2)
    (s, t), (d, e), (a, c) = stride, dilation, padding
    y = run(GROUPED, {"W": w, "x": x, "B": bias}, s=s, t=t, d=d, e=e, a=a, c=c, N=outputs, M=inputs)
    expected = convolution(x, w, bias, stride, padding, dilation, groups)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int, up: bool) -> int:
    """The number of pooling windows, as PyTorch documents it."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if up else 0)) // stride + 1
    if up and (count - 1) * stride >= size + padding:
        count -= 1
    return count


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["max", "min", "mean", "sum", "prod"]),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 2),
    st.integers(1, 2),
    st.booleans(),
)
def test_pooling(
    kind: str, size: int, kernel: int, stride: int, padding: int, dilation: int, up: bool
) -> None:
    assume(padding <= kernel // 2)
    assume(size + 2 * padding > dilation * (kernel - 1))
    x = normal(1, size, size + 1, 2)
    y = run(
        f"y[b,p,q,i] = {kind}{WINDOW}",
        {"x": x},
        {"u": kernel, "v": kernel},
        up,
        s=stride,
        d=dilation,
        a=padding,
    )
    counts = [windows(n, kernel, stride, padding, dilation, up) for n in (size, size + 1)]
    assert y.shape == (1, *counts, 2)
    of = {"max": np.max, "min": np.min, "mean": np.mean, "sum": np.sum, "prod": np.prod}[kind]
    empty = {"max": -np.inf, "min": np.inf, "mean": 0.0, "sum": 0.0, "prod": 1.0}[kind]
    for p, q in itertools.product(*map(range, counts)):
        rows, columns = (
            [k for u in range(kernel) if 0 <= (k := stride * place + dilation * u - padding) < n]
            for place, n in ((p, size), (q, size + 1))
        )
        part: Any = x[0][np.ix_(rows, columns)]
        expected = of(part, axis=(0, 1)) if part.size else empty
        np.testing.assert_allclose(y[0, p, q], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "up", "expected"),
    [
        (9, 4, 4, 2, True, 3),
        (12, 1, 2, 0, True, 6),
        (54, 3, 2, 0, True, 27),
        (54, 3, 2, 0, False, 26),
        (112, 3, 2, 0, True, 56),
        (112, 3, 2, 1, False, 56),
        (224, 7, 2, 3, False, 112),
        (227, 11, 4, 0, False, 55),
        (224, 11, 4, 2, False, 55),
    ],
)
def test_known_window_counts(
    size: int, kernel: int, stride: int, padding: int, up: bool, expected: int
) -> None:
    equation = parse("y[p] = max[u](x[s*p+u-a])", sizes={"u": kernel}, s=stride, a=padding)
    assert resolve(equation, {"x": (size,)}, ceil_mode=up).shape == (expected,)


@pytest.mark.parametrize(
    ("text", "shapes", "sizes", "expected"),
    [
        ("y[p] = x[p//3]", {"x": (4,)}, {}, 12),
        ("y[p] = x[p/3]", {"x": (4,)}, {}, 10),
        ("y[p] = x[7-p]", {"x": (8,)}, {}, 8),
        ("y[p] = x[7-2*p]", {"x": (8,)}, {}, 4),
        ("y[p] = sum[u](W[u] * x[p-u+1])", {"x": (8,), "W": (3,)}, {}, 8),
        ("y[p] = sum[u](W[u] * x[p-u+2])", {"x": (8,), "W": (3,)}, {}, 6),
        ("y[p] = x[p+2]", {"x": (8,)}, {}, 6),
        ("y[p] = x[p-2]", {"x": (8,)}, {}, 12),
        ("y[p] = x[p-2]", {"x": (8,)}, {"p": 3}, 3),
        ("y[p] = x[p] + z[p+2]", {"x": (8,), "z": (4,)}, {}, 8),
        ("y[p] = x[p] + z[p]", {"x": (8,), "z": (4,)}, {"p": 6}, 6),
    ],
)
def test_window_rule(
    text: str, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int], expected: int
) -> None:
    assert resolve(parse(text), shapes, sizes=sizes).shape == (expected,)
    assert resolve(parse(text, sizes=sizes), shapes).shape == (expected,)


def test_the_statement_lists_operands_and_extents_in_order() -> None:
    equation = parse("y[b,q,p] = sum[v,u](W[u,v] * x[b,p+u,q+v]) + B[()]")
    statement = resolve(equation, {"B": (), "x": (2, 5, 6), "W": (2, 3)})
    assert statement.shapes == (("W", (2, 3)), ("x", (2, 5, 6)), ("B", ()))
    assert statement.extents == (("b", 2), ("q", 4), ("p", 4), ("v", 3), ("u", 2))
    assert statement.shape == (2, 4, 4)
    assert hash(statement) == hash(resolve(equation, {"W": (2, 3), "x": (2, 5, 6), "B": ()}))


def test_sizes_win_in_order() -> None:
    equation = parse("y[p] = max[u](x[p+u])", sizes={"u": 2})
    assert resolve(equation, {"x": (5,)}).shape == (4,)
    statement = resolve(equation, {"x": (5,)}, sizes={"u": 3})
    assert statement.shape == (3,)
    assert statement.equation.sizes == (("u", 3),)


def test_permutations() -> None:
    x = normal(2, 3, 4, 12)
    shuffled = run("y[b,p,q,G*i+g] = x[b,p,q,N*g+i]", {"x": x}, {"g": 3}, G=3, N=4)
    expected = x.reshape(2, 3, 4, 3, 4).swapaxes(3, 4).reshape(x.shape)
    np.testing.assert_array_equal(shuffled, expected)
    flat = run("y[b,P*Q*i+Q*p+q] = x[b,p,q,i]", {"x": x}, P=3, Q=4)
    np.testing.assert_array_equal(flat, x.transpose(0, 3, 1, 2).reshape(2, -1))


def test_moves() -> None:
    x = normal(1, 5, 6, 2)
    patches = run("z[b,p,q,u,v,i] = x[b,p+u,q+v,i]", {"x": x}, {"u": 2, "v": 3})
    view = np.lib.stride_tricks.sliding_window_view(x, (2, 3), (1, 2))
    np.testing.assert_array_equal(patches, view.transpose(0, 1, 2, 4, 5, 3))
    np.testing.assert_array_equal(
        run("y[b,p,q,i] = x[b,p//2,q//3,i]", {"x": x}), x.repeat(2, 1).repeat(3, 2)
    )
    z = normal(3)
    np.testing.assert_array_equal(
        run("y[p] = z[p/3]", {"z": z}, {"p": 8}), [z[0], 0, 0, z[1], 0, 0, z[2], 0]
    )
    np.testing.assert_array_equal(
        run("y[p] = z[p] + w[p-3]", {"z": z, "w": normal(2)}, {"p": 5}), [*z, *normal(2)]
    )


def test_reads_outside() -> None:
    x = np.array([1.0, 2.0, 3.0])
    # Outside any reduction a read outside is 0; inside one the whole point is left out.
    np.testing.assert_array_equal(
        run("y[p] = 2 * x[p-1] + 5", {"x": x}, {"p": 5}), [5, 7, 9, 11, 5]
    )
    np.testing.assert_array_equal(
        run("y[p] = sum[u](2 * x[p+u-1] + 5)", {"x": x}, {"p": 4, "u": 1}), [0, 7, 9, 11]
    )
    np.testing.assert_array_equal(
        run("y[p] = sum[u](x[u] * z[u+p])", {"x": x, "z": x}, {"p": 4}), [14, 8, 3, 0]
    )
    # Only the innermost reduction leaves it out: the outer one still counts the point.
    np.testing.assert_array_equal(
        run("y[p] = sum[u](10 + sum[v](x[p+u+v]))", {"x": x}, {"p": 1, "u": 4, "v": 1}), [46]
    )
    # A mean divides by the points it keeps, also where the body has other reads.
    np.testing.assert_array_equal(
        run("y[p] = mean[u,v](x[p+u-1] + 0*v)", {"x": x}, {"p": 4, "u": 3, "v": 2}),
        [1.5, 2, 2.5, 3],
    )
    np.testing.assert_array_equal(
        run("y[p] = mean[u](x[p+u])", {"x": x}, {"p": 5, "u": 2}), [1.5, 2.5, 3, 0, 0]
    )
    # The branch that is not taken is read all the same.
    np.testing.assert_array_equal(
        run("y[p] = sum[u](where(u == 0, 1, x[p+u]))", {"x": x}, {"p": 3, "u": 2}), [3, 4, 1]
    )


def test_a_reduction_of_a_constant_counts_its_points() -> None:
    assert run("y[()] = sum[u,v](1)", {}, {"u": 3, "v": 4}) == 12
    assert run("y[()] = mean[u](2)", {}, {"u": 3}) == 2
    assert run("y[()] = prod[u](2)", {}, {"u": 3}) == 8
    np.testing.assert_array_equal(run("y[p] = sum[u](p*u)", {}, {"p": 3, "u": 4}), [0, 6, 12])


@pytest.mark.parametrize(
    ("body", "function"),
    [
        ("x[p] + z[p]", lambda x, z: x + z),
        ("x[p] - z[p]", lambda x, z: x - z),
        ("x[p] * z[p]", lambda x, z: x * z),
        ("x[p] / z[p]", lambda x, z: x / z),
        ("-x[p] + 0*z[p]", lambda x, z: -x),
        ("maximum(x[p], z[p])", np.maximum),
        ("minimum(x[p], z[p])", np.minimum),
        ("relu(x[p]) + z[p]", lambda x, z: np.where(x > 0, x, 0) + z),
        ("clip(x[p], -0.5, z[p])", lambda x, z: np.minimum(np.maximum(x, -0.5), z)),
        ("exp(x[p]) + log(abs(z[p]))", lambda x, z: np.exp(x) + np.log(np.abs(z))),
        ("sqrt(z[p]*z[p]) + tanh(x[p])", lambda x, z: np.abs(z) + np.tanh(x)),
        ("sigmoid(x[p]) * z[p]", lambda x, z: z / (1 + np.exp(-x))),
        ("(x[p] < z[p]) + 2*(x[p] > z[p])", lambda x, z: (x < z) + 2.0 * (x > z)),
        ("(x[p] <= x[p]) + (z[p] == z[p])", lambda x, z: np.full_like(x, 2)),
        ("(x[p] != z[p]) + (x[p] >= z[p])", lambda x, z: 1.0 + (x >= z)),
        ("where(x[p] < 0, z[p], p)", lambda x, z: np.where(x < 0, z, np.arange(len(x)))),
        ("(x[p]*x[p])**1.3 - z[p]**2", lambda x, z: (x * x) ** 1.3 - z * z),
    ],
)
def test_functions(body: str, function: Any) -> None:
    x, z = normal(40), normal(40, seed=1)
    expected = function(x, z)
    np.testing.assert_allclose(run(f"y[p] = {body}", {"x": x, "z": z}), expected, rtol=1e-12)


def test_batch_norm_and_cross_entropy_as_one_equation() -> None:
    x = normal(3, 2, 4, 5)
    y = run(
        "y[b,p,q,i] = (x[b,p,q,i] - mean[c,r,s](x[c,r,s,i]))"
        " / sqrt(mean[c,r,s]((x[c,r,s,i] - mean[d,t,u](x[d,t,u,i]))**2) + e)",
        {"x": x},
        e=1e-3,
    )
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-12)
    scores, labels = normal(4, 6), np.array([0.0, 5, 2, 2])
    loss = run(
        "l[()] = mean[b](log(sum[j](exp(x[b,j]))) - sum[j](where(j == t[b], x[b,j], 0)))",
        {"x": scores, "t": labels},
    )
    chosen = scores[np.arange(4), labels.astype(int)]
    np.testing.assert_allclose(loss, np.mean(np.log(np.exp(scores).sum(1)) - chosen), rtol=1e-12)


def test_types() -> None:
    statement = resolve(parse("y[()] = sum[u](x[u] * w[u])"), {"x": (3,), "w": (3,)})
    # The products cancel in float64 but not in float32.
    x = np.array([1e8, 1, -1e8], np.float32)
    w = np.ones(3, np.float32)
    result = interpret(statement, {"x": x, "w": w})
    assert result.dtype == np.float32
    assert result == 1
    assert interpret(statement, {"x": x.astype(np.float64), "w": w}).dtype == np.float64


def test_large_reductions_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    operands = {"x": normal(1, 5, 5, 2), "W": normal(3, 3, 2, 3), "B": normal(3)}
    constants = {"s": 1, "t": 2, "d": 1, "e": 1, "a": 1, "c": 1, "N": 3, "M": 2}
    whole = run(GROUPED, operands, **constants)
    pooled = {
        kind: run(
            f"y[b,p,q,i] = {kind}{WINDOW}", {"x": operands["x"]}, {"u": 2, "v": 2}, a=1, s=1, d=1
        )
        for kind in ("max", "min", "mean", "prod")
    }
    monkeypatch.setattr(sys.modules["striate.notation.interpret"], "_BLOCK", 4)
    np.testing.assert_allclose(run(GROUPED, operands, **constants), whole, rtol=1e-12)
    for kind, expected in pooled.items():
        parts = run(
            f"y[b,p,q,i] = {kind}{WINDOW}", {"x": operands["x"]}, {"u": 2, "v": 2}, a=1, s=1, d=1
        )
        np.testing.assert_allclose(parts, expected, rtol=1e-12)
    # An index that a loop ran over is whole again in the next reduction that has it.
    x = operands["x"][0, 0, :, 0]
    y = run("y[p] = sum[u](x[p+u]) + sum[u](x[u])", {"x": x}, {"u": 3})
    np.testing.assert_allclose(y, [sum(x[p : p + 3]) + sum(x[:3]) for p in range(3)])
