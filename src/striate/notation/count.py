"""How much arithmetic a statement asks for."""

from math import prod

from striate.notation.access import indices_of
from striate.notation.ir import Apply, Expression, Reduce, Statement, reads


def multiply_adds(statement: Statement) -> int:
    """Multiply-adds of the contractions in `statement`: sums of products of different tensors.

    Each costs its output times its reduction; bias, activation and pooling count nothing, as in
    torchvision's tables. A sum within a sum is counted once for each of its values.
    """
    extents = dict(statement.extents)
    outer = frozenset(indices_of(statement.equation.output.access))
    return _contractions(statement.equation.expression, extents, outer)


def _contractions(
    expression: Expression, extents: dict[str, int], around: frozenset[str], *, nested: bool = False
) -> int:
    """Multiply-adds of `expression` at all places of the indices `around` it."""
    match expression:
        case Apply(_, arguments):
            parts = [_contractions(part, extents, around, nested=nested) for part in arguments]
            return sum(parts)
        case Reduce(kind, indices, body):
            if nested:
                around &= {i for read in reads(body) for i in indices_of(read.access)}
            inside = around | set(indices)
            product = kind == "sum" and _is_product(body)
            once = prod(extents[index] for index in inside)
            return product * once + _contractions(body, extents, inside, nested=True)
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
