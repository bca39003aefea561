"""The derivative of every function of the notation: a table, one row for each argument.

A row turns `c`, the derivative of the whole by the function's value, into that by the argument.
`y` is the function's value, `a`, `b`, ... its arguments. Where a function has a corner, its
arguments share: at `maximum(a, a)` each gets half; `relu` and `clip` are flat at their corners.
"""

from collections.abc import Callable, Mapping

from striate.notation.expression import apply
from striate.notation.ir import Apply, Constant, Expression

ZERO, ONE = Constant(0.0), Constant(1.0)


def times(a: Expression, b: Expression) -> Expression:
    """`a * b`, without factors of 1."""
    if ONE in (a, b):
        return a if b == ONE else b
    return apply("multiply", a, b)


def over(a: Expression, b: Expression) -> Expression:
    """`a / b`, without a division by 1."""
    return a if b == ONE else apply("divide", a, b)


def minus(a: Expression) -> Expression:
    """`-a`."""
    return apply("negative", a)


def where(test: Expression, a: Expression, b: Expression = ZERO) -> Expression:
    """`a` where the test holds, else `b`."""
    return a if a == b else Apply("where", (test, a, b))


def less(a: Expression, b: Expression) -> Expression:
    """Whether `a < b`."""
    return Apply("less", (a, b))


def equal(a: Expression, b: Expression) -> Expression:
    """Whether `a == b`."""
    return Apply("equal", (a, b))


def _half_where_equal(c: Expression, a: Expression, b: Expression) -> Expression:
    return where(equal(a, b), over(c, Constant(2.0)))


Row = Callable[..., Expression]

DERIVATIVES: Mapping[str, tuple[Row | None, ...]] = {
    "add": (lambda c, y, a, b: c, lambda c, y, a, b: c),
    "subtract": (lambda c, y, a, b: c, lambda c, y, a, b: minus(c)),
    "multiply": (lambda c, y, a, b: times(c, b), lambda c, y, a, b: times(c, a)),
    "divide": (
        lambda c, y, a, b: over(c, b),
        lambda c, y, a, b: minus(over(times(c, y), b)),
    ),
    "negative": (lambda c, y, a: minus(c),),
    "maximum": (
        lambda c, y, a, b: where(less(b, a), c, _half_where_equal(c, a, b)),
        lambda c, y, a, b: where(less(a, b), c, _half_where_equal(c, a, b)),
    ),
    "minimum": (
        lambda c, y, a, b: where(less(a, b), c, _half_where_equal(c, a, b)),
        lambda c, y, a, b: where(less(b, a), c, _half_where_equal(c, a, b)),
    ),
    "relu": (lambda c, y, a: where(less(ZERO, y), c),),
    "clip": (
        lambda c, y, a, low, high: where(less(low, a), where(less(a, high), c)),
        lambda c, y, a, low, high: where(less(low, a), ZERO, where(less(low, high), c)),
        lambda c, y, a, low, high: where(less(a, high), where(less(low, high), ZERO, c), c),
    ),
    "exp": (lambda c, y, a: times(c, y),),
    "log": (lambda c, y, a: over(c, a),),
    "sqrt": (lambda c, y, a: over(c, times(Constant(2.0), y)),),
    "tanh": (lambda c, y, a: times(c, apply("subtract", ONE, times(y, y))),),
    "sigmoid": (lambda c, y, a: times(c, times(y, apply("subtract", ONE, y))),),
    "abs": (lambda c, y, a: where(less(ZERO, a), c, where(less(a, ZERO), minus(c))),),
    "less": (None, None),
    "less_equal": (None, None),
    "equal": (None, None),
    "not_equal": (None, None),
    "where": (
        None,
        lambda c, y, test, a, b: where(test, c),
        lambda c, y, test, a, b: where(test, ZERO, c),
    ),
}
