"""Every mistake in an equation, or in what it is given, has its clear message."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from striate.notation import NotationError, adjoint, interpret, parse, resolve

UNREADABLE: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "one equals sign"),
    ("y[p]", {}, "one equals sign"),
    ("y[p] = x[p]; z[p] = x[p]", {}, "one equals sign"),
    ("y[p] = z[p] = x[p]", {}, "one equals sign"),
    ("y[p] = = x[p]", {}, "does not read at column 8"),
    ("y[p] = x[p", {}, "does not read"),
    ("y[p] = x[p]\0", {}, "does not read"),
    ("import os", {}, "one equals sign"),
    ("y = x[p]", {}, "left side must be a tensor"),
    ("f(p) = x[p]", {}, "does not read"),
    ("y[p,p] = x[p]", {}, "index p occurs more than once in the output y"),
    ("y[p, 2*q+p] = x[p,q]", {}, "index p occurs more than once"),
    ("y[p//2] = x[p]", {}, "divide or turn around on the right side"),
    ("y[3-p] = x[p]", {}, "divide or turn around on the right side"),
    ("y[p] = y[p] + x[p]", {}, "y is the output and cannot be read"),
    ("y[p] = x[k]", {}, "index k in x[k] is neither an index of the output nor reduced"),
    ("y[p] = x[s*p]", {}, "bind it as a constant: s=..."),
    ("y[p] = sum[u](x[p+u]) + x[u]", {}, "index u in x[u] is neither"),
    ("y[p,q] = x[p*q]", {}, "p * q in x[p * q] is not affine"),
    ("y[p] = x[p**2]", {}, "is not affine"),
    ("y[p] = x[p % 2]", {}, "is not affine"),
    ("y[p] = x[p // 0]", {}, "is not affine"),
    ("y[p] = x[p // -2]", {}, "is not affine"),
    ("y[p] = x[2*(p//2)]", {}, "is not affine"),
    ("y[p] = x[-(p//2)]", {}, "is not affine"),
    ("y[p] = x[p//2 + p//3]", {}, "is not affine"),
    ("y[p] = x[p//2/2]", {}, "is not affine"),
    ("y[p] = x[7/2]", {}, "is not affine"),
    ("y[p] = x[0.5*p]", {}, "is not affine"),
    ("y[p] = x[True]", {}, "is not affine"),
    ("y[p] = x[p:q]", {}, "is not affine"),
    ("y[p] = x[z[p]]", {}, "is not affine"),
    ("y[p] = x[a*p]", {"a": 1.5}, "constant a is 1.5, but it stands in an index (x[a * p])"),
    ("y[p] = x[4294967296*p]", {}, "holds a number of 2147483648 or more"),
    ("y[p] = x[p] + k", {}, "k is unbound: bind it as a constant (k=...)"),
    ("y[p] = x[p] + x", {}, "index it if it is a tensor (x[...]"),
    ("y[p] = foo(x[p])", {}, "there is no function foo"),
    ("y[p] = sigmoit(x[p])", {}, "did you mean sigmoid?"),
    ("y[p] = max(x[p], 0)", {}, "maximum(a, b) takes the maximum of two numbers"),
    ("y[p] = sum(x[p])", {}, "a reduction names its indices: sum[...](...)"),
    ("y[p] = clip(x[p])", {}, "clip takes 3 arguments, not 1"),
    ("y[p] = relu(x[p], 1)", {}, "relu takes 1 arguments, not 2"),
    ("y[p] = relu(x=x[p])", {}, "not part of the notation"),
    ("y[p] = summ[u](x[p+u])", {}, "there is no reduction summ; did you mean sum?"),
    ("y[p] = argmax[u](x[p+u])", {}, "there is no reduction argmax"),
    ("y[p] = sum[2*u](x[p+u])", {}, "must name the indices to reduce"),
    ("y[p] = sum[()](x[p])", {}, "must name the indices to reduce"),
    ("y[p] = sum[p](x[p])", {}, "index p of sum[p] is already in use around it"),
    ("y[p] = sum[u](max[u](x[p,u]))", {}, "index u of max[u] is already in use around it"),
    ("y[p] = sum[u,u](x[p,u])", {}, "index u of sum[u,u] is already in use"),
    ("y[p] = sum[u](x[p+u])", {"u": 3}, "u is an index of sum[u] and a constant (3)"),
    ("y[p] = sum[p]", {}, "sum is a reduction"),
    ("y[p] = 0 < x[p] < 3", {}, "compare two numbers at a time"),
    ("y[p] = x[p] and x[p]", {}, "not part of the notation"),
    ("y[p] = not x[p]", {}, "not part of the notation"),
    ("y[p] = x[p] // 2", {}, "not part of the notation"),
    ("y[p] = x[p] @ x[p]", {}, "not part of the notation"),
    ("y[p] = 'a'", {}, "not part of the notation"),
    ("y[p] = 1j * x[p]", {}, "not part of the notation"),
    ("y[p] = x[p].T", {}, "not part of the notation"),
    ("y[p] = __import__('os').system('true')", {}, "not part of the notation"),
    ("y[p] = (lambda: x[p])()", {}, "not part of the notation"),
    ("y[p] = f(x)[p]", {}, "only a tensor's name can be indexed"),
    ("y[p] = x[p] ** x[p]", {}, "the exponent must be a constant"),
    ("y[p] = " + "relu(" * 150 + "x[p]" + ")" * 150, {}, "nested"),
    ("y[p] = " + "-" * 5000 + "x[p]", {}, "y[p]"),
    ("y[p] = x[" + "1+" * 5000 + "p]", {}, "y[p]"),
    ("y[p] = x[p] * 1" + "0" * 400, {}, "beyond all floating point"),
    ("y[p] = x[p] * a", {"a": float("nan")}, "constants are numbers"),
    ("y[p] = x[p] * a", {"a": "two"}, "constant a is 'two'; constants are numbers"),
    ("y[p] = x[p] * a", {"a": True}, "constant a is True"),
    ("y[p] = x[p]", {"stride": 2}, "constant stride is given, but the equation does not name it"),
    ("y[p] = x[p]", {"sizes": {"u": 3}}, "sizes names u, which is no index of the equation"),
    ("y[p] = x[p]", {"sizes": {"p": 0}}, "sizes are integers from 1"),
    ("y[p] = x[p]", {"sizes": {"p": 1.5}}, "sizes are integers from 1"),
]


@pytest.mark.parametrize(("text", "given", "message"), UNREADABLE)
def test_unreadable_equations(text: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse(text, **given)
    assert message in str(caught.value)
    assert text.strip()[:40] in str(caught.value)


UNSIZED: list[tuple[str, Mapping[str, tuple[int, ...]], dict[str, Any], str]] = [
    ("y[p] = x[p] * z[p]", {"x": (3,)}, {}, "operand z is missing; given: x"),
    ("y[p] = x[p]", {"x": (3,), "z": (3,)}, {}, "operand z is given, but"),
    ("y[p] = x[p]", {"x": (3, 4)}, {}, "x[p] has 1 indices, but x has 2 axes"),
    ("y[p] = x[p] * x[p,0]", {"x": (3, 4)}, {}, "x[p] has 1 indices, but x has 2 axes"),
    ("y[p] = x[p] * z[p]", {"x": (3,), "z": (4,)}, {}, "index p has size 3 by axis 0 of x[p], "),
    ("y[p] = x[p] * z[p]", {"x": (3,), "z": (4,)}, {}, "but 4 by axis 0 of z[p]"),
    ("y[p] = x[p+1] * z[p+1]", {"x": (3,), "z": (4,)}, {}, "index p has size 2 by axis 0 of"),
    ("y[p] = sum[u](x[p+u])", {"x": (9,)}, {}, "nothing determines the size of index p and u"),
    ("y[p] = sum[u](x[p+u])", {"x": (9,)}, {}, "give it: sizes={'p': ..., 'u': ...}"),
    ("y[p,q] = x[p]", {"x": (9,)}, {}, "nothing determines the size of index q"),
    ("y[p] = x[p] * sum[k](k)", {"x": (9,)}, {}, "k is used as a number"),
    ("y[p] = sum[u](W[u]*x[p+u])", {"W": (5,), "x": (3,)}, {}, "reaches over 5 places, but the"),
    ("y[p] = sum[u](W[u]*x[p+u-1])", {"W": (7,), "x": (3,)}, {}, "and 1 of padding on each side"),
    ("y[p] = x[p]", {"x": (0,)}, {}, "axis 0 of x has size 0"),
    ("y[p] = x[p]", {"x": (3,)}, {"sizes": {"q": 3}}, "sizes names q, which is no index"),
    ("y[p] = x[p]", {"x": (3,)}, {"sizes": {"p": -1}}, "sizes start at 1"),
    ("y[2*p] = x[p]", {"x": (3,)}, {}, "2*p in the output writes some places never"),
    ("y[2*p+q] = x[p,q]", {"x": (3, 3)}, {}, "writes some places twice"),
    ("y[4*p+q] = x[p,q]", {"x": (3, 3)}, {}, "the step of p is 4, but the indices of smaller"),
    ("y[p+q] = x[p,q]", {"x": (3, 3)}, {}, "writes some places twice"),
    ("y[p+1] = x[p]", {"x": (3,)}, {}, "never writes the first 1 places"),
]


@pytest.mark.parametrize(("text", "shapes", "given", "message"), UNSIZED)
def test_sizes_that_do_not_fit(
    text: str, shapes: Mapping[str, tuple[int, ...]], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotationError) as caught:
        resolve(parse(text), shapes, **given)
    assert message in str(caught.value)
    assert text.split(" = ")[0] in str(caught.value)
    for name, shape in shapes.items():
        assert f"{name}[{', '.join(map(str, shape))}]" in str(caught.value)


def test_operands_that_do_not_fit() -> None:
    statement = resolve(parse("y[p] = x[p]"), {"x": (3,)})
    with pytest.raises(NotationError, match=r"operand x must have shape \(3,\); given: \(4,\)"):
        interpret(statement, {"x": np.zeros(4)})
    with pytest.raises(NotationError, match="given: nothing"):
        interpret(statement, {})


def test_gradients_that_do_not_exist() -> None:
    statement = resolve(parse("y[p] = x[p] * d_y[p]"), {"x": (3,), "d_y": (3,)})
    with pytest.raises(NotationError, match="there is no operand z; there are x, d_y"):
        adjoint(statement, "z")
    with pytest.raises(NotationError, match="d_y is an operand"):
        adjoint(statement, "x")
