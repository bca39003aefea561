"""The grammar of the notation: every form an equation can take, on one page.

    equation    output[affine, ...] = expression
    expression  constant | position of an index | read | function(expression, ...)
                | kind of expression over indices
    affine      (sum of coefficient * index + offset) [// divisor | / divisor]

The nodes are plain data; what they mean is said once, by `interpret`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

# Functions of expressions and the number of their arguments.
FUNCTIONS: Mapping[str, int] = {
    "add": 2,
    "subtract": 2,
    "multiply": 2,
    "divide": 2,
    "negative": 1,
    "maximum": 2,
    "minimum": 2,
    "relu": 1,
    "clip": 3,
    "exp": 1,
    "log": 1,
    "sqrt": 1,
    "tanh": 1,
    "sigmoid": 1,
    "abs": 1,
    "less": 2,
    "less_equal": 2,
    "equal": 2,
    "not_equal": 2,
    "where": 3,
}

# Reductions and the identity that a read outside a tensor's box contributes.
IDENTITIES: Mapping[str, float] = {
    "sum": 0.0,
    "mean": 0.0,
    "max": float("-inf"),
    "min": float("inf"),
    "prod": 1.0,
}


@dataclass(frozen=True, slots=True)
class Affine:
    """An integer function of indices: `(sum of coefficient * index + offset) // divisor`.

    With `exact` (written with a single slash) the value exists only where the division leaves no
    remainder; elsewhere the access lies outside the box. That is how a strided read is transposed.
    """

    terms: tuple[tuple[str, int], ...]
    offset: int = 0
    divisor: int = 1
    exact: bool = False

    @property
    def index(self) -> str | None:
        """The index, if this is one index and nothing else."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and not self.offset and self.divisor == 1:
            return self.terms[0][0]
        return None

    def coefficient(self, index: str) -> int:
        """The coefficient of `index` before the division; 0 where it does not occur."""
        return dict(self.terms).get(index, 0)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Position:
    """The value of an index, used as a number."""

    index: str


@dataclass(frozen=True, slots=True)
class Read:
    """The element of `tensor` at `access`, one affine function for each axis."""

    tensor: str
    access: tuple[Affine, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """A function of `FUNCTIONS` applied element by element."""

    function: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Reduce:
    """`kind` of `body` over all `indices`; points that read outside a box are left out."""

    kind: str
    indices: tuple[str, ...]
    body: "Expression"


Expression = Constant | Position | Read | Apply | Reduce


@dataclass(frozen=True, slots=True)
class Equation:
    """`output = expression`, with `sizes` for the indices that no operand determines."""

    output: Read
    expression: Expression
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """An equation whose every size is known: what is interpreted, planned and compiled.

    `shapes` holds the operands' shapes in the order of their first appearance, `extents` the size
    of every index (output indices first, then reductions in their order), `shape` that of the
    output.
    """

    equation: Equation
    shapes: tuple[tuple[str, Shape], ...]
    extents: tuple[tuple[str, int], ...]
    shape: Shape

    def __hash__(self) -> int:
        """Of the sizes alone: statements are keys of many tables, and expressions are deep."""
        return hash((self.shapes, self.extents))


def walk(expression: Expression) -> Iterator[Expression]:
    """All nodes of `expression`, parents before children, left to right."""
    yield expression
    match expression:
        case Apply(_, arguments):
            for argument in arguments:
                yield from walk(argument)
        case Reduce(_, _, body):
            yield from walk(body)
        case _:
            pass


def reads(expression: Expression) -> list[Read]:
    """All reads in `expression`, in the order they are written."""
    return [node for node in walk(expression) if isinstance(node, Read)]
