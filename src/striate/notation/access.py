"""Arithmetic on affine functions of indices."""

from collections.abc import Iterable, Mapping
from math import gcd

from striate.notation.ir import Affine, Read, Shape


def affine(
    terms: Iterable[tuple[str, int]], offset: int = 0, divisor: int = 1, exact: bool = False
) -> Affine:
    """The affine function in its simplest form: terms of one index united, the fraction reduced.

    With a common factor g of the divisor and every coefficient, `(g*n + c) // (g*d)` is
    `(n + c // g) // d`; an exact division may be reduced only where g divides the offset too.
    """
    united: dict[str, int] = {}
    for index, coefficient in terms:
        united[index] = united.get(index, 0) + coefficient
    common = gcd(divisor, offset if exact else 0, *united.values())
    kept = tuple([(i, c // common) for i, c in united.items() if c])
    divisor //= common
    return Affine(kept, offset // common, divisor, exact and divisor > 1)


def single(index: str) -> Affine:
    """The index itself."""
    return Affine(((index, 1),))


def add(left: Affine, right: Affine) -> Affine | None:
    """`left + right`, or None where the sum of two divisions is not one division."""
    if left.divisor > 1 and right.divisor > 1:
        return None
    scale_left, scale_right = right.divisor, left.divisor
    return affine(
        [(i, scale_left * c) for i, c in left.terms]
        + [(i, scale_right * c) for i, c in right.terms],
        scale_left * left.offset + scale_right * right.offset,
        left.divisor * right.divisor,
        left.exact or right.exact,
    )


def scale(value: Affine, factor: int) -> Affine | None:
    """`factor * value`, or None where a division stands in the way."""
    if value.divisor > 1 and factor != 1 and not (value.exact and factor == -1):
        return None
    terms = [(i, factor * c) for i, c in value.terms]
    return affine(terms, factor * value.offset, value.divisor, value.exact)


def divide(value: Affine, divisor: int, exact: bool) -> Affine | None:
    """`value // divisor` or, with `exact`, `value / divisor`; None where the two kinds meet."""
    if value.divisor > 1 and value.exact != exact and divisor > 1:
        return None
    return affine(value.terms, value.offset, value.divisor * divisor, exact or value.exact)


def bounds(value: Affine, extents: Mapping[str, int]) -> tuple[int, int]:
    """The least and the greatest value over all index values (before exactness is asked for)."""
    low = high = value.offset
    for index, coefficient in value.terms:
        reach = coefficient * (extents[index] - 1)
        if reach < 0:
            low += reach
        else:
            high += reach
    return low // value.divisor, high // value.divisor


def may_be_outside(read: Read, shape: Shape, extents: Mapping[str, int]) -> bool:
    """Whether some index values take `read` outside a tensor of `shape`, or leave a remainder."""
    for value, size in zip(read.access, shape, strict=True):
        low, high = bounds(value, extents)
        if value.exact or low < 0 or high >= size:
            return True
    return False


def indices_of(access: Iterable[Affine]) -> tuple[str, ...]:
    """The indices in `access`, in the order they are written, each once."""
    return tuple(dict.fromkeys(index for value in access for index, _ in value.terms))
