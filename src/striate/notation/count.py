"""How much arithmetic a statement asks for."""

from dataclasses import replace
from math import prod

from striate.notation.access import indices_of
from striate.notation.ir import Affine, Apply, Expression, Reduce, Statement, reads, walk


def multiply_adds(statement: Statement) -> int:
    """Multiply-adds of the contractions in `statement`: sums of products of different tensors.

    Each costs its output times its reduction; bias, activation and pooling count nothing, as in
    torchvision's tables. A sum within a sum is counted once for each of its values.
    """
    outer = indices_of(statement.equation.output.access)
    extents = dict(statement.extents)
    places = prod(extents[index] for index in outer)
    return _contractions(statement.equation.expression, statement, places)


def _contractions(expression: Expression, statement: Statement, places: int) -> int:
    """Multiply-adds of `expression` at so many places of the indices around it."""
    match expression:
        case Apply(_, arguments):
            return sum(_contractions(argument, statement, places) for argument in arguments)
        case Reduce(kind, indices, body):
            extents = dict(statement.extents)
            points = places * prod(extents[index] for index in indices)
            inner = _outermost(body)
            nested = sum(_contractions(n, statement, _places(n, statement)) for n in inner)
            return (kind == "sum" and _is_product(body)) * points + nested
        case _:
            return 0


def _outermost(expression: Expression) -> set[Reduce]:
    """The reductions in `expression` that stand in no other, each once."""
    match expression:
        case Apply(_, arguments):
            return {node for argument in arguments for node in _outermost(argument)}
        case Reduce():
            return {expression}
        case _:
            return set()


def _places(node: Reduce, statement: Statement) -> int:
    """How many values a reduction takes: one for each element that its reads start from."""
    extents, shapes = dict(statement.extents), dict(statement.shapes)
    own = {index for part in walk(node) if isinstance(part, Reduce) for index in part.indices}
    sizes: dict[Affine, int] = {}
    for read in reads(node):
        for affine, size in zip(read.access, shapes[read.tensor], strict=True):
            outer = tuple(term for term in affine.terms if term[0] not in own)
            if outer:
                count = min(prod(extents[index] for index, _ in outer), size)
                start = replace(affine, terms=outer, offset=0)
                sizes[start] = min(count, sizes.get(start, count))
    return prod(sizes.values())


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
