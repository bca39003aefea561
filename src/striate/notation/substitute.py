"""Putting affine functions in the place of indices, and giving indices names."""

from collections.abc import Iterable, Mapping

from striate.notation.access import affine
from striate.notation.expression import apply
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Expression,
    Position,
    Read,
    Reduce,
)


class Names:
    """A supply of unused indices, with the size of each; `u#7` is to be called `u` in the end."""

    def __init__(self, extents: Mapping[str, int]) -> None:
        self.extents = dict(extents)

    def fresh(self, index: str, size: int) -> str:
        """A new index of this size, named after `index`."""
        name = f"{base(index)}#{len(self.extents)}"
        self.extents[name] = size
        return name

    def copy(self, expression: Expression) -> Expression:
        """The same expression with fresh indices in its reductions."""
        return self._copy(expression, {}, {})

    def _copy(
        self,
        node: Expression,
        renamed: dict[str, Affine],
        done: dict[tuple[Expression, frozenset[tuple[str, Affine]]], Expression],
    ) -> Expression:
        """Equal expressions in the same place get the same names, so that they stay equal."""
        key = node, frozenset(renamed.items())
        if key in done:
            return done[key]
        match node:
            case Reduce(kind, indices, body):
                fresh = [self.fresh(index, self.extents[index]) for index in indices]
                inner = renamed | {
                    old: Affine(((new, 1),)) for old, new in zip(indices, fresh, strict=True)
                }
                result: Expression = Reduce(kind, tuple(fresh), self._copy(body, inner, done))
            case Apply(function, arguments):
                copies = [self._copy(argument, renamed, done) for argument in arguments]
                result = Apply(function, tuple(copies))
            case _:
                result = substitute(node, renamed)
        done[key] = result
        return result


def base(index: str) -> str:
    """The name that a fresh index was made from."""
    return index.partition("#")[0]


def compose(value: Affine, replaced: Mapping[str, Affine]) -> Affine:
    """`value` with affine functions in the place of indices.

    An exact division among them is taken to leave no remainder; its own reads see to that.
    """
    common = 1
    for index, _ in value.terms:
        if index in replaced:
            common *= replaced[index].divisor
    terms: list[tuple[str, int]] = []
    offset = common * value.offset
    for index, coefficient in value.terms:
        inner = replaced.get(index, Affine(((index, 1),)))
        factor = coefficient * common // inner.divisor
        terms += [(i, factor * c) for i, c in inner.terms]
        offset += factor * inner.offset
    exact = value.exact or value.divisor == 1
    return affine(terms, offset, value.divisor * common, exact)


def substitute(expression: Expression, replaced: Mapping[str, Affine]) -> Expression:
    """`expression` with affine functions in the place of its free indices.

    The caller sees to it that no reduction inside uses an index that a replacement brings.
    """
    match expression:
        case Constant():
            return expression
        case Position(index):
            return number(replaced[index]) if index in replaced else expression
        case Read(tensor, access):
            return Read(tensor, tuple([compose(value, replaced) for value in access]))
        case Apply(function, arguments):
            return Apply(function, tuple([substitute(a, replaced) for a in arguments]))
        case Reduce(kind, indices, body):
            return Reduce(kind, indices, substitute(body, replaced))


def number(value: Affine) -> Expression:
    """The value of an affine function without `//`, as an expression."""
    total: Expression = Constant(0.0)
    parts: list[tuple[int, Expression]] = [(c, Position(i)) for i, c in value.terms]
    for factor, part in [*parts, (value.offset, Constant(1.0))]:
        size = Constant(float(abs(factor)))
        term = part if abs(factor) == 1 else apply("multiply", size, part)
        if total == Constant(0.0):
            total = term if factor >= 0 else apply("negative", term)
        elif factor:
            total = apply("add" if factor > 0 else "subtract", total, term)
    return total if value.divisor == 1 else apply("divide", total, Constant(float(value.divisor)))


def called(
    expression: Expression, output: Iterable[str], extents: Mapping[str, int]
) -> tuple[Expression, dict[str, str], dict[str, int]]:
    """`expression` with readable index names, the names of `output`, and all names' sizes.

    An index gets its base name, or the base name and a number where that name is taken around it
    or stands for another size. Equal reductions get equal names.
    """
    sizes: dict[str, int] = {}

    def choose(index: str, taken: Iterable[str]) -> str:
        stem, size, tried = base(index), extents[index], 0
        name = stem
        while name in taken or sizes.get(name, size) != size:
            tried += 1
            name = f"{stem}{tried}"
        sizes[name] = size
        return name

    names: dict[str, str] = {}
    for index in output:
        names[index] = choose(index, names.values())

    def rename(node: Expression, names: Mapping[str, str]) -> Expression:
        match node:
            case Apply(function, arguments):
                return Apply(function, tuple([rename(a, names) for a in arguments]))
            case Reduce(kind, indices, body):
                inner = dict(names)
                for index in indices:
                    inner[index] = choose(index, inner.values())
                return Reduce(kind, tuple([inner[i] for i in indices]), rename(body, inner))
            case _:
                return substitute(node, {old: Affine(((new, 1),)) for old, new in names.items()})

    return rename(expression, names), names, sizes
