"""When a read exists: intervals and divisibility of linear functions of the indices."""

from dataclasses import dataclass

from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Expression,
    Position,
    Read,
    Reduce,
    Statement,
)


@dataclass(frozen=True, slots=True)
class Guard:
    """`low <= terms + offset <= high`; or, with a divisor, `terms + offset` leaves no remainder.

    A bound that the indices' extents keep anyway is None.
    """

    terms: tuple[tuple[str, int], ...]
    offset: int
    low: int | None = None
    high: int | None = None
    divisor: int = 1

    @property
    def indices(self) -> frozenset[str]:
        return frozenset(index for index, _ in self.terms)


def free_indices(expression: Expression) -> frozenset[str]:
    """The indices that the value of `expression` depends on."""
    match expression:
        case Constant():
            return frozenset()
        case Position(index):
            return frozenset((index,))
        case Read(_, access):
            return frozenset(i for affine in access for i, c in affine.terms if c)
        case Apply(_, arguments):
            return frozenset().union(*[free_indices(argument) for argument in arguments])
        case Reduce(_, indices, body):
            return free_indices(body) - set(indices)


def leaves(expression: Expression) -> list[Read | Position | Reduce]:
    """The reads, positions and reductions of `expression` outside inner reductions, each once."""
    match expression:
        case Constant():
            return []
        case Apply(_, arguments):
            return list(dict.fromkeys(leaf for part in arguments for leaf in leaves(part)))
        case _:
            return [expression]


def bounds(affine: Affine, extents: dict[str, int]) -> tuple[int, int]:
    """The least and greatest value of `affine` before its division."""
    low = high = affine.offset
    for index, coefficient in affine.terms:
        reach = coefficient * (extents[index] - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    return low, high


def guards(statement: Statement, read: Read) -> list[Guard]:
    """What must hold for `read` to lie in its tensor's box, beyond what the extents ensure."""
    found = []
    extents = dict(statement.extents)
    shape = dict(statement.shapes)[read.tensor]
    for affine, size in zip(read.access, shape, strict=True):
        terms = tuple((index, c) for index, c in affine.terms if c)
        low, high = bounds(affine, extents)
        last = (size - 1) * affine.divisor if affine.exact else size * affine.divisor - 1
        if low < 0 or high > last:
            interval = (0 if low < 0 else None, last if high > last else None)
            found.append(Guard(terms, affine.offset, *interval))
        numbers = [affine.offset, *[c for _, c in terms]]
        if affine.exact and any(n % affine.divisor for n in numbers):
            found.append(Guard(terms, affine.offset, divisor=affine.divisor))
    return found
