"""exp, log, tanh and sigmoid against NumPy's float64, in units in the last place of float32."""

from collections.abc import Callable

import numpy as np
import pytest
from kernel_harness import RUNNABLE, Array, run, statement
from numpy.typing import NDArray

from striate.compiler.schedules import generic

EXACT: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}

# Where an implementation changes its method, overflows, underflows, or meets no number.
EDGES = (
    *(0.0, np.inf, np.nan, 1e-45, 1e-39, 1.1754944e-38, 3.4e38, 1.0, 0.5, 2.0, 10.0, 16.6),
    *(88.0, 88.7, 88.72284, 88.72285, 88.8, 89.0, 90.0, 87.3, 87.4, 100.0, 103.0, 103.9, 104.5),
    *(110.0, 200.0, 0.625, 0.62499994, 0.70710677, 0.70710683, 1.4142135, 0.99999994, 1.0000001),
)


def inputs() -> Array:
    """The edges with both signs, every kind of float, and the ranges that matter."""
    generator = np.random.default_rng(7)
    count = 40_000
    return np.concatenate(
        [
            np.array([sign * edge for edge in EDGES for sign in (1, -1)], np.float32),
            generator.integers(0, 2**32, count, dtype=np.uint32).view(np.float32),
            generator.uniform(-110, 110, count).astype(np.float32),
            generator.uniform(-2, 2, count).astype(np.float32),
            generator.uniform(0.5, 2, count).astype(np.float32),
        ]
    )


def ulps(got: Array, exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance in units in the last place; 0 where both are NaN or the same infinity."""
    nearest = exact.astype(np.float32)
    finite = np.isfinite(nearest)
    unit = np.maximum(np.spacing(np.abs(np.where(finite, nearest, 1))), 2.0**-149)
    distance = np.abs(got.astype(np.float64) - exact) / unit
    distance[~finite | ~np.isfinite(got)] = np.inf
    distance[(got == nearest) | (np.isnan(got) & np.isnan(exact))] = 0
    return distance


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("function", EXACT)
def test_within_four_ulp_of_exact(function: str, target: str) -> None:
    x = inputs()
    stated = statement(f"y[i] = {function}(x[i])", {"x": x.shape})
    with np.errstate(all="ignore"):
        distance = ulps(
            run(generic, stated, {"x": x}, target), EXACT[function](x.astype(np.float64))
        )
    worst = int(np.argmax(distance))
    assert distance[worst] <= 4, f"{function}({x[worst]!r}) is off by {distance[worst]} ulp"


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("maximum(x[i], y[i])", ([1, np.nan, 2, np.inf], [2, 1, np.nan, 0]), [2, np.nan] * 2),
        ("minimum(x[i], y[i])", ([1, np.nan, 2, -np.inf], [2, 1, np.nan, 0]), [1, np.nan] * 2),
        ("relu(x[i]) + 0 * y[i]", ([-1, np.nan, 2, np.inf], [0] * 4), [0, np.nan, 2, np.inf]),
        ("clip(x[i], 0, 6) + y[i]", ([-1, np.nan, 2, np.inf], [0] * 4), [0, np.nan, 2, 6]),
        ("sqrt(x[i]) + abs(y[i])", ([4, 0, np.inf, -1], [-1, 2, 0, 0]), [3, 2, np.inf, np.nan]),
        ("where(x[i] < y[i], x[i], 7)", ([1, 2, np.nan, 0], [2, 1, 0, -1]), [1, 7, 7, 7]),
        ("where(x[i] != y[i], 1, 0)", ([1, 2, np.nan, 0], [1, 1, np.nan, -0.0]), [0, 1, 1, 0]),
    ],
)
def test_selecting_functions_treat_nan_as_numpy_does(
    text: str, given: tuple[list[float], list[float]], expected: list[float]
) -> None:
    x, y = (np.array(values, np.float32) for values in given)
    stated = statement(f"z[i] = {text}", {"x": (4,), "y": (4,)})
    wanted = np.array(expected, np.float32)
    if text.startswith(("maximum", "minimum")):
        wanted[2:] = [np.nan, np.inf if text.startswith("max") else -np.inf]
    for target in RUNNABLE:
        np.testing.assert_array_equal(run(generic, stated, {"x": x, "y": y}, target), wanted)
