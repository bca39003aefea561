"""From "this read gets that derivative" to "this element gets the sum of those derivatives".

A read `x[2*p+u-1]` at the points (p, u) hands a derivative back to the element k = 2*p+u-1. The
gradient runs over k instead: it solves for one index of every axis, here p = (k-u+1)/2, and sums
over the others. The division is exact, so only points of the right residue class take part.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from striate.notation.access import affine, bounds, may_be_outside, single
from striate.notation.derivatives import ONE, ZERO, equal, less, times, where
from striate.notation.expression import apply, direct_reads
from striate.notation.ir import Affine, Apply, Constant, Expression, Position, Read, Reduce, Shape
from striate.notation.substitute import (
    Names,
    base,
    compose,
    number,
    substitute,
)

# Names for the axes of a gradient whose places are sums of indices.
_LETTERS = "mnklhwrsefgzcd"


@dataclass(frozen=True, slots=True)
class Contribution:
    """At every point of the indices in `scope`, `derivative` goes to the element at `access`.

    Points where one of the reads in `guards` is outside its box are left out.
    """

    scope: tuple[str, ...]
    derivative: Expression
    guards: tuple[Read, ...]
    access: tuple[Affine, ...]


@dataclass(slots=True)
class _Solution:
    """Indices in terms of the gradient's; conditions for what could not be solved."""

    values: dict[str, Affine]
    conditions: list[Expression]
    remainders: list[str]


class Transposer:
    """Sums contributions to the elements of one tensor.

    `shapes` are those of all tensors, `outer` the indices of the forward equation's output, and
    `formal` indices of size 1 that stand only for a reduction around a read.
    """

    def __init__(
        self,
        names: Names,
        shapes: Mapping[str, Shape],
        operand: str,
        outer: Collection[str],
        formal: set[str],
    ) -> None:
        self.names = names
        self.shapes = shapes
        self.operand = operand
        self.shape = shapes[operand]
        self.outer = outer
        self.formal = formal

    def gradient(
        self, contributions: Sequence[Contribution]
    ) -> tuple[tuple[Affine, ...], Expression]:
        """How the gradient is indexed, and the sum of all contributions at one element."""
        letters = (c for c in _LETTERS if c not in {base(i) for i in self.names.extents})
        outputs: list[Affine] = []
        kept = [self.kept_axis(axis, contributions) for axis in range(len(self.shape))]
        for axis, size in enumerate(self.shape):
            terms: list[tuple[str, int]] = []
            for index, coefficient in kept[axis]:
                terms.append((self.names.fresh(index, self.names.extents[index]), coefficient))
            if not kept[axis]:
                terms.append((self.names.fresh(next(letters, "k"), size), 1))
            outputs.append(Affine(tuple(terms)))
        total: Expression = ZERO
        for contribution in contributions:
            part = self.at_element(contribution, outputs, [bool(terms) for terms in kept])
            total = part if total == ZERO else apply("add", total, part)
        return tuple(outputs), total

    def kept_axis(self, axis: int, contributions: Sequence[Contribution]) -> list[tuple[str, int]]:
        """The first contribution's terms, if all run over this axis once, in the same steps."""
        steps = []
        for contribution in contributions:
            uses = Counter(i for value in contribution.access for i, _ in value.terms)
            value = contribution.access[axis]
            shared = any(uses[index] > 1 for index, _ in value.terms)
            if shared or value.divisor > 1 or value.offset or not self.covers(value, axis):
                return []
            steps.append([(c, self.names.extents[i]) for i, c in self.by_step(value)])
        if not steps or any(step != steps[0] for step in steps):
            return []
        return list(contributions[0].access[axis].terms)

    def by_step(self, value: Affine) -> list[tuple[str, int]]:
        return sorted(value.terms, key=lambda term: (term[1], self.names.extents[term[0]]))

    def covers(self, value: Affine, axis: int) -> bool:
        """Whether a sum of indices takes every place of an axis exactly once."""
        places = 1
        for index, coefficient in self.by_step(value):
            if coefficient != places:
                return False
            places *= self.names.extents[index]
        return bool(value.terms) and places == self.shape[axis]

    def at_element(
        self, contribution: Contribution, outputs: Sequence[Affine], kept: Sequence[bool]
    ) -> Expression:
        """What all points of a contribution give to the element that `outputs` names."""
        renamed: dict[str, Affine] = {}
        equations: list[tuple[Affine, str]] = []
        for value, output, keep in zip(contribution.access, outputs, kept, strict=True):
            if keep:
                pairs = zip(self.by_step(value), self.by_step(output), strict=True)
                renamed |= {old: single(new) for (old, _), (new, _) in pairs}
            else:
                equations.append((value, output.terms[0][0]))
        solution = self.solve_all(contribution, equations)
        replaced = renamed | solution.values
        derivative = contribution.derivative
        for condition in solution.conditions:
            derivative = where(condition, derivative)
        rest = [i for i in contribution.scope if i not in replaced] + solution.remainders
        rest.sort(key=lambda index: index in self.outer)
        own = Read(self.operand, contribution.access)
        guards = [substitute(read, replaced) for read in contribution.guards if read != own]
        return self.close(
            substitute(derivative, replaced), rest, [g for g in guards if isinstance(g, Read)]
        )

    def solve_all(
        self, contribution: Contribution, equations: Sequence[tuple[Affine, str]]
    ) -> _Solution:
        """Solve, giving up those indices whose range nothing would see to."""
        banned: set[str] = set()
        while True:
            solution = self.solve(contribution, equations, banned)
            loose = [t for t in solution.values if not self.confined(t, solution, contribution)]
            if not loose:
                return solution
            banned.add(loose[0])

    def solve(
        self,
        contribution: Contribution,
        equations: Sequence[tuple[Affine, str]],
        banned: Collection[str],
    ) -> _Solution:
        """One index of every axis in terms of the gradient's index there, or a condition."""
        solution = _Solution({}, [], [])
        for value, element in equations:
            place = affine([(element, value.divisor)])
            if value.divisor > 1 and not value.exact:
                remainder = self.names.fresh("r", value.divisor)
                solution.remainders.append(remainder)
                place = affine([*place.terms, (remainder, 1)])
            whole = compose(Affine(value.terms, value.offset), solution.values)
            candidates = [
                (index in self.outer, self.names.extents[index], index)
                for index, _ in whole.terms
                if index in contribution.scope and index not in banned
            ]
            if candidates:
                index = max(candidates, key=lambda candidate: candidate[:2])[2]
                self.replace(solution.values, index, _solved(whole, place, index))
            elif whole.terms or self.names.extents[element] > 1:
                solution.conditions.append(equal(number(whole), number(place)))
        return solution

    def replace(self, values: dict[str, Affine], index: str, value: Affine) -> None:
        for other in values:
            values[other] = compose(values[other], {index: value})
        values[index] = value

    def confined(self, index: str, solution: _Solution, contribution: Contribution) -> bool:
        """Whether values of `index` outside its range, or between integers, are left out.

        They are where a read has an axis that ends just where the index's range does.
        """
        value, size = solution.values[index], self.names.extents[index]
        low, high = bounds(value, self.names.extents)
        if value.divisor == 1 and low >= 0 and high < size:
            return True
        for read in direct_reads(contribution.derivative):
            for along, length in zip(read.access, self.shapes[read.tensor], strict=True):
                step = along.coefficient(index)
                others = [(i, c) for i, c in along.terms if i != index]
                if step < 1 or along.divisor > 1 or any(i in solution.values for i, _ in others):
                    continue
                low, high = bounds(Affine(tuple(others), along.offset), self.names.extents)
                fits = low >= 0 and high < step and length <= step * size
                if fits and gcd(step, value.divisor) == 1:
                    return True
        return False

    def close(
        self, derivative: Expression, indices: Sequence[str], guards: Iterable[Read]
    ) -> Expression:
        """The sum of `derivative` over `indices`, without points where a guard is outside."""
        present = direct_reads(derivative)
        for guard in guards:
            if guard not in present and self.outside(guard):
                here = Apply("where", (less(guard, ZERO), ONE, ONE))
                derivative = times(derivative, here)
        real = tuple([index for index in indices if index not in self.formal])
        if real:
            return Reduce("sum", real, derivative)
        risky = [read for read in direct_reads(derivative) if self.outside(read)]
        if all(_vanishes(derivative, read) for read in risky):
            return derivative
        return Reduce("sum", (self.formal_index(),), derivative)

    def outside(self, read: Read) -> bool:
        return may_be_outside(read, self.shapes[read.tensor], self.names.extents)

    def formal_index(self) -> str:
        """A new index of size 1: a sum over it makes a read outside its box count as 0."""
        index = self.names.fresh("o", 1)
        self.formal.add(index)
        return index


def _solved(whole: Affine, place: Affine, index: str) -> Affine:
    """`index` from `whole == place`, where `whole` may be an exact fraction."""
    coefficient = whole.coefficient(index)
    sign = 1 if coefficient > 0 else -1
    terms = [(i, sign * whole.divisor * c) for i, c in place.terms]
    terms += [(i, -sign * c) for i, c in whole.terms if i != index]
    offset = sign * (whole.divisor * place.offset - whole.offset)
    return affine(terms, offset, sign * coefficient, exact=True)


def _vanishes(expression: Expression, read: Read) -> bool:
    """Whether `expression` is surely 0 where `read` is."""
    match expression:
        case Read():
            return expression == read
        case Apply("multiply", (a, b)):
            return (_vanishes(a, read) and _finite(b)) or (_vanishes(b, read) and _finite(a))
        case Apply("divide", (a, Constant(value))):
            return value != 0 and _vanishes(a, read)
        case Apply("negative", (a,)):
            return _vanishes(a, read)
        case Apply("where", (_, a, b)):
            return all(part == ZERO or _vanishes(part, read) for part in (a, b))
        case _:
            return False


def _finite(expression: Expression) -> bool:
    """Whether `expression` is a number wherever its reads are."""
    match expression:
        case Constant() | Position() | Read():
            return True
        case Apply("divide", (a, Constant(value))):
            return value != 0 and _finite(a)
        case Apply("divide" | "log" | "sqrt" | "exp", _):
            return False
        case Apply(_, arguments):
            return all(map(_finite, arguments))
        case Reduce(kind, _, body):
            return kind in ("sum", "mean") and _finite(body)
