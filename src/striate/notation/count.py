"""How much arithmetic a statement asks for."""

from math import prod

from striate.notation.access import indices_of
from striate.notation.ir import Apply, Expression, Reduce, Statement, reads


def multiply_adds(statement: Statement) -> int:
    """Multiply-adds of the contractions in `statement`: sums of products of different tensors.

    Each costs its output times its reduction; bias, activation and pooling count nothing, as in
    torchvision's tables.
    """
    extents = dict(statement.extents)
    outer = prod(extents[i] for i in indices_of(statement.equation.output.access))
    return outer * _contractions(statement.equation.expression, extents)


def _contractions(expression: Expression, extents: dict[str, int]) -> int:
    """Multiply-adds at one point of the indices around `expression`."""
    match expression:
        case Apply(_, arguments):
            return sum(_contractions(argument, extents) for argument in arguments)
        case Reduce(kind, indices, body):
            one = int(kind == "sum" and _is_product(body)) + _contractions(body, extents)
            return one * prod(extents[index] for index in indices)
        case _:
            return 0


def _is_product(body: Expression) -> bool:
    """Whether the body multiplies reads of two different tensors, perhaps among other factors."""
    match body:
        case Apply("multiply", (left, right)):
            tensors = {read.tensor for read in reads(left)}, {read.tensor for read in reads(right)}
            both = tensors[0] and tensors[1] and len(tensors[0] | tensors[1]) > 1
            return bool(both) or _is_product(left) or _is_product(right)
        case Apply("negative", (argument,)):
            return _is_product(argument)
        case _:
            return False
