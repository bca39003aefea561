"""Equations of one's own: `equation(text)` is a function of NumPy arrays, compiled when called."""

from collections.abc import Mapping
from typing import cast

import numpy as np

from striate.layers.apply import draw, run
from striate.layers.arguments import Array, Operand, as_float32, is_node
from striate.network.graph import Node
from striate.notation import interpret, parse, resolve, to_text
from striate.notation.ir import Shape, Statement


class EquationFunction:
    """An equation as a function of its operands, which are given by name.

    Calling it compiles it for the operands' shapes, once, and runs it; with a symbolic operand it
    draws a node. `sizes` gives what no operand determines, and overrides the window rule.
    """

    def __init__(self, text: str, **constants: int | float) -> None:
        self.equation = parse(text, sizes=None, **constants)

    def __call__(
        self,
        *,
        sizes: Mapping[str, int] | None = None,
        ceil_mode: bool = False,
        **operands: Operand,
    ) -> Array:
        """The equation's value: float32. Raises NotationError, TypeError."""
        if any(is_node(value) for value in operands.values()):
            statement = self.statement(_shapes(operands), sizes=sizes, ceil_mode=ceil_mode)
            return cast(Array, draw(statement, operands, self.equation.output.tensor))
        arrays = {name: as_float32(value, name) for name, value in operands.items()}
        return run(self.statement(_shapes(arrays), sizes=sizes, ceil_mode=ceil_mode), arrays)

    def interpret(
        self,
        *,
        sizes: Mapping[str, int] | None = None,
        ceil_mode: bool = False,
        **operands: "np.ndarray[tuple[int, ...], np.dtype[np.floating]]",
    ) -> Array:
        """The equation's value by plain NumPy, slowly: what a compiled one is held to."""
        arrays = {
            name: value if value.dtype == np.float64 else as_float32(value, name)
            for name, value in ((name, np.asarray(value)) for name, value in operands.items())
        }
        statement = self.statement(_shapes(arrays), sizes=sizes, ceil_mode=ceil_mode)
        return cast(Array, interpret(statement, arrays))

    def statement(
        self,
        shapes: Mapping[str, Shape],
        *,
        sizes: Mapping[str, int] | None = None,
        ceil_mode: bool = False,
    ) -> Statement:
        """The equation with every size known, for operands of these shapes."""
        return resolve(self.equation, shapes, sizes=sizes, ceil_mode=ceil_mode)

    def __str__(self) -> str:
        return to_text(self.equation)

    def __repr__(self) -> str:
        return f"equation({str(self)!r})"


def equation(text: str, **constants: int | float) -> EquationFunction:
    """The equation `text`, its constants bound, as a function of arrays. Raises NotationError.

    >>> blur = equation("y[b,p,q,i] = sum[u,v](k[u,v] * x[b, p+u-1, q+v-1, i])")
    >>> blur(k=kernel, x=images)  # doctest: +SKIP
    """
    return EquationFunction(text, **constants)


def _shapes(operands: Mapping[str, Array | Node | Operand]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for name, value in operands.items():
        if not is_node(value) and not isinstance(value, np.ndarray):
            raise TypeError(f"operand {name} is {type(value).__name__}; expected a NumPy array")
        shapes[name] = tuple(value.shape)
    return shapes
