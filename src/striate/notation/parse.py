"""Text to `Equation`: equations are Python, so Python's own parser reads them.

    y[b,p,q,j] = relu(sum[u,v,i](W[u,v,i,j] * x[b, 2*p+u-1, 2*q+v-1, i]) + B[j])

The left side names the output's indices; `kind[indices](body)` reduces; names that are bound by
keyword are constants; an index that stands alone in the body is its own value.
"""

import ast
import math
import operator
from collections.abc import Mapping
from functools import lru_cache

from striate.notation.errors import NotationError
from striate.notation.ir import Equation
from striate.notation.reader import Number, Reader


def parse(text: str, /, *, sizes: Mapping[str, int] | None = None, **constants: Number) -> Equation:
    """The equation that `text` says, with its named constants bound.

    `sizes` gives the sizes of indices that no operand determines (a pooling window). Constants in
    an index are integers, constants in the body numbers. Raises NotationError.
    """
    named = tuple([(name, _number(text, name, value)) for name, value in constants.items()])
    given = tuple([(name, _size(text, name, size)) for name, size in (sizes or {}).items()])
    # 2 and 2.0 are equal as keys, but only one of them may stand in an index.
    kinds = tuple([type(value) for _, value in named])
    return _parse(text, named, kinds, given)


def _number(text: str, name: str, value: object) -> Number:
    if isinstance(value, bool | str):
        raise NotationError(f"constant {name} is {value!r}; constants are numbers", text)
    try:
        number: Number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
    if math.isnan(number):
        raise NotationError(f"constant {name} is {value!r}; constants are numbers", text)
    return number


def _size(text: str, name: str, value: object) -> int:
    try:
        size = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        size = 0
    if size < 1 or isinstance(value, bool):
        raise NotationError(
            f"the size of index {name} is given as {value!r}; sizes are integers from 1", text
        )
    return size


@lru_cache(maxsize=4096)
def _parse(
    text: str,
    constants: tuple[tuple[str, Number], ...],
    kinds: tuple[type, ...],
    sizes: tuple[tuple[str, int], ...],
) -> Equation:
    target, value = _template(text)
    reader = Reader(text, dict(constants))
    try:
        equation = Equation(reader.output(target), reader.expression(value), tuple(sorted(sizes)))
    except RecursionError:
        raise reader.error("the equation is nested too deeply") from None
    except OverflowError:
        raise reader.error("the equation holds a number beyond all floating point") from None
    for name, _ in sizes:
        if name not in reader.indices:
            raise reader.error(
                f"sizes names {name}, which is no index of the equation; "
                f"its indices are {', '.join(reader.indices) or 'none'}"
            )
    for name in reader.constants:
        if name not in reader.used:
            raise reader.error(f"constant {name} is given, but the equation does not name it")
    return equation


@lru_cache(maxsize=1024)
def _template(text: str) -> tuple[ast.expr, ast.expr]:
    """The two sides of the equation as Python's syntax tree."""
    if not isinstance(text, str):
        raise NotationError(f"an equation is text, not {type(text).__name__}", repr(text))
    try:
        # Brackets let an equation run over several lines, as it may in a docstring.
        body = ast.parse(" ".join(text.split())).body
    except SyntaxError as error:
        place = f" at column {error.offset}" if error.offset else ""
        raise NotationError(f"the equation does not read{place}: {error.msg}", text) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise NotationError(f"the equation does not read: {error}", text) from None
    if len(body) != 1 or not isinstance(body[0], ast.Assign) or len(body[0].targets) != 1:
        raise NotationError(
            "an equation has the form  output[indices] = expression, with one equals sign", text
        )
    return body[0].targets[0], body[0].value
