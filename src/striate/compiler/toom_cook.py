"""The matrices of Winograd's convolution, from their points, and code that multiplies by them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from striate.compiler.builder import Builder, Value

Matrix = tuple[tuple[Fraction, ...], ...]
# One for the rows of an image or of taps, one for the columns.
Matrices = tuple[Matrix, Matrix]

# Numbers near 1 and their opposites lose the least in rounding.
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2), Fraction(4, 3), Fraction(-4, 3))


@dataclass(frozen=True, slots=True)
class Algorithm:
    """F(m, r): `y = output ((weights g) * (data d))`, m outputs of a correlation with r taps."""

    data: Matrix
    weights: Matrix
    output: Matrix


@lru_cache(maxsize=32)
def algorithm(m: int, r: int) -> Algorithm:
    """F(m, r) on the first of `POINTS` and infinity, as many as it takes (m + r - 1).

    Toom and Cook multiply polynomials by their values at points; a correlation is the transpose.
    """
    count = m + r - 1
    points = [Fraction(point) for point in POINTS[: count - 1]]
    if len(points) < count - 1:
        raise ValueError(f"F({m}, {r}) takes {count - 1} points; there are {len(POINTS)}")
    data, weights = [], []
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        scale = _product([point - other for other in others])
        data.append((*_polynomial(others), Fraction(0)))
        weights.append(tuple(point**k / scale for k in range(r)))
    data.append(tuple(_polynomial(points)))
    weights.append(tuple(Fraction(int(k == r - 1)) for k in range(r)))
    output = [(*[point**k for point in points], Fraction(int(k == m - 1))) for k in range(m)]
    return Algorithm(tuple(data), tuple(weights), tuple(output))


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of `prod (x - root)`, the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [*[-root * c for c in coefficients], Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _product(factors: list[Fraction]) -> Fraction:
    result = Fraction(1)
    for factor in factors:
        result *= factor
    return result


def emit_transform(
    b: Builder, matrices: Matrices, columns: Iterable[Sequence[Value]]
) -> Iterator[list[Value]]:
    """The rows of `first values second'`, of a matrix of vectors given by its columns.

    Each column is asked for when its turn comes, and each row is made when it is: who loads and
    stores meanwhile needs fewer registers.
    """
    first, second = matrices
    halves = [_emit_product(b, first, list(column)) for column in columns]
    for row in zip(*halves, strict=True):
        yield _emit_product(b, second, list(row))


def _emit_product(b: Builder, matrix: Matrix, values: list[Value]) -> list[Value]:
    """`matrix` times the vectors `values`.

    Opposite points share their work: two columns that agree up to signs become a sum and a
    difference, and so do two such rows.
    """
    matrix, joined = _join_columns(matrix)
    for j, k in joined:
        total = b.emit(f"fadd {b.vector} {values[j]}, {values[k]}")
        difference = b.emit(f"fsub {b.vector} {values[j]}, {values[k]}")
        values[j], values[k] = total, difference
    result: dict[int, Value] = {}
    for i, (row, partner) in enumerate(zip(matrix, _partners(matrix), strict=True)):
        if i in result:
            continue
        if partner is None:
            result[i] = _combine(b, list(row), values)
            continue
        mirror = matrix[partner]
        even = [c if c == d else Fraction(0) for c, d in zip(row, mirror, strict=True)]
        odd = [c if c != d else Fraction(0) for c, d in zip(row, mirror, strict=True)]
        first, second = _combine(b, even, values), _combine(b, odd, values)
        result[i] = b.emit(f"fadd {b.vector} {first}, {second}")
        result[partner] = b.emit(f"fsub {b.vector} {first}, {second}")
    return [result[i] for i in range(len(matrix))]


@lru_cache(maxsize=64)
def _join_columns(matrix: Matrix) -> tuple[Matrix, tuple[tuple[int, int], ...]]:
    """The matrix for values of which pairs j, k became value[j] + value[k] and their difference.

    The pairs are those whose columns are of the form (c, +-c).
    """
    columns, pairs = list(zip(*matrix, strict=True)), list[tuple[int, int]]()
    for j, column in enumerate(columns):
        for k in range(j + 1, len(columns)):
            if len(matrix) > 2 and _opposite(column, columns[k]):
                both = list(zip(column, columns[k], strict=True))
                columns[j] = tuple(c if c == d else Fraction(0) for c, d in both)
                columns[k] = tuple(c if c != d else Fraction(0) for c, d in both)
                pairs.append((j, k))
                break
    return tuple(zip(*columns, strict=True)), tuple(pairs)


@lru_cache(maxsize=64)
def _partners(matrix: Matrix) -> tuple[int | None, ...]:
    """The next row that is opposite to each."""
    return tuple(
        next((j for j in range(i + 1, len(matrix)) if _opposite(row, matrix[j])), None)
        for i, row in enumerate(matrix)
    )


def _opposite(row: tuple[Fraction, ...], other: tuple[Fraction, ...]) -> bool:
    """Whether the rows agree up to the sign of some coefficients, and have both kinds."""
    alike = [abs(c) == abs(d) for c, d in zip(row, other, strict=True)]
    signs = {c == d for c, d in zip(row, other, strict=True) if c}
    return all(alike) and len(signs) == 2


def _combine(b: Builder, coefficients: list[Fraction], values: list[Value]) -> Value:
    """The sum of coefficient * value; terms of coefficient 1 come first and cost one addition."""
    terms = [(c, v) for c, v in zip(coefficients, values, strict=True) if c]
    terms.sort(key=lambda term: abs(term[0]) != 1)
    (first, total), *rest = terms
    if first == -1:
        total = b.emit(f"fneg {b.vector} {total}")
    elif first != 1:
        total = b.emit(f"fmul {b.vector} {total}, {b.splat(float(first))}")
    for coefficient, value in rest:
        if coefficient == 1:
            total = b.emit(f"fadd {b.vector} {total}, {value}")
        elif coefficient == -1:
            total = b.emit(f"fsub {b.vector} {total}, {value}")
        else:
            total = b.fma(value, b.splat(float(coefficient)), total)
    return total
