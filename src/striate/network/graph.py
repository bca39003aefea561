"""A network as a graph of equations: inputs, parameters, and statements on other nodes.

Nodes compare by identity, and print without what they hang on, which would be printed once for
every path to it. A node's shape is logical (`[b, x, y, i]` for images); where its elements lie in
memory is for the compiler's plan to say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from striate.notation.ir import Shape, Statement

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """An array given at every call."""

    name: str
    shape: Shape

    def __repr__(self) -> str:
        return f"Input({self.name!r}, {self.shape})"


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """An array known when the graph is compiled: a weight, a bias, a running mean."""

    name: str
    array: Array

    @property
    def shape(self) -> Shape:
        return tuple(self.array.shape)

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.shape})"


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """The output of `statement` on parameters alone: known before the run, when they are."""

    name: str
    statement: Statement
    operands: tuple[tuple[str, "Known"], ...]

    @property
    def shape(self) -> Shape:
        return self.statement.shape

    def __repr__(self) -> str:
        return f"Derived({self.name!r}, {self.shape})"


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """The output of `statement` on `operands` (tensor name in the equation, node)."""

    statement: Statement
    operands: tuple[tuple[str, "Node"], ...]
    label: str

    @property
    def shape(self) -> Shape:
        return self.statement.shape

    def __repr__(self) -> str:
        return f"Computed({self.label!r}, {self.shape})"


@dataclass(frozen=True, slots=True, eq=False)
class Concatenated:
    """`parts` one after another along `axis`: part k is `y[..., i + offset_k, ...]`."""

    parts: tuple["Node", ...]
    axis: int
    label: str

    @property
    def shape(self) -> Shape:
        first = self.parts[0].shape
        size = sum(part.shape[self.axis] for part in self.parts)
        return (*first[: self.axis], size, *first[self.axis + 1 :])

    def __repr__(self) -> str:
        return f"Concatenated({self.label!r}, {self.shape})"


Known = Parameter | Derived
Node = Input | Known | Computed | Concatenated


@dataclass(frozen=True)
class Graph:
    """What is given and what is asked for; everything between hangs on the outputs."""

    inputs: tuple[Input, ...]
    outputs: tuple[Node, ...]

    def nodes(self) -> tuple[Node, ...]:
        """Every node that an output needs, operands before their users."""
        return self._order

    @cached_property
    def _order(self) -> tuple[Node, ...]:
        order: list[Node] = []
        done: set[int] = set()
        stack: list[tuple[Node, Iterator[Node]]] = [
            (out, operands(out)) for out in self.outputs[::-1]
        ]
        while stack:
            node, pending = stack[-1]
            successor = next((n for n in pending if id(n) not in done), None)
            if id(node) in done:
                stack.pop()
            elif successor is not None:
                stack.append((successor, operands(successor)))
            else:
                done.add(id(node))
                order.append(node)
                stack.pop()
        return tuple(order)


def operands(node: Node) -> Iterator[Node]:
    """The nodes that `node` reads at every run; what is derived before has none."""
    match node:
        case Computed(_, named, _):
            return iter([operand for _, operand in named])
        case Concatenated(parts, _, _):
            return iter(parts)
        case _:
            return iter(())
