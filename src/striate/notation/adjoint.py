"""The gradient of a statement, again as a statement.

Reverse mode on the expression: the derivative of the result by the whole is the operand
`d_<output>`; it is pushed down the tree by the table of derivatives until it reaches reads of the
operand, and `transpose` turns "goes to this element" into a sum at each element. Where a node
depends on fewer indices than the point it is at, its derivatives are summed as early as that: a
mean over a batch gets one derivative for each feature.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from striate.notation.access import indices_of, may_be_outside
from striate.notation.derivatives import (
    DERIVATIVES,
    ONE,
    ZERO,
    equal,
    less,
    over,
    times,
    where,
)
from striate.notation.errors import NotationError
from striate.notation.expression import contains, direct_reads, free_indices
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Equation,
    Expression,
    Position,
    Read,
    Reduce,
    Statement,
    reads,
)
from striate.notation.printing import to_text
from striate.notation.resolve import resolve
from striate.notation.substitute import (
    Names,
    called,
    compose,
)
from striate.notation.transpose import Contribution, Transposer


@lru_cache(maxsize=1024)
def adjoint(statement: Statement, operand: str) -> Statement:
    """The gradient with respect to `operand`: `d_<operand>` from `d_<output>` and the operands.

    The result may also read the output itself. Raises NotationError if `operand` is not read.
    """
    return _Adjoint(statement, operand).statement()


class _Adjoint:
    """Derives one gradient."""

    def __init__(self, statement: Statement, operand: str) -> None:
        equation, shapes = statement.equation, dict(statement.shapes)
        self.operand = operand
        self.output = equation.output
        self.cotangent = f"d_{equation.output.tensor}"
        self.check(equation, shapes)
        self.shapes = shapes | {
            self.output.tensor: statement.shape,
            self.cotangent: statement.shape,
        }
        self.names = Names(dict(statement.extents))
        self.formal: set[str] = set()
        self.scope = indices_of(self.output.access)
        self.transposer = Transposer(
            self.names, self.shapes, operand, frozenset(self.scope), self.formal
        )
        self.root = self.enclosed(self.names.copy(equation.expression))
        self.contributions: list[Contribution] = []

    def check(self, equation: Equation, shapes: dict[str, tuple[int, ...]]) -> None:
        problem = ""
        if self.operand not in shapes:
            problem = f"there is no operand {self.operand}; there are {', '.join(shapes) or 'none'}"
        elif self.cotangent in shapes:
            problem = f"{self.cotangent} is an operand, but names the output's derivative here"
        if problem:
            raise NotationError(problem, to_text(equation), shapes)

    def statement(self) -> Statement:
        """The gradient with readable names and all its sizes."""
        derivative = Read(self.cotangent, self.output.access)
        self.push(self.root, derivative, self.scope, ())
        access, total = self.transposer.gradient(self.contributions)
        outer = indices_of(access)
        expression, names, sizes = called(self.disclosed(total), outer, self.names.extents)
        renamed = {old: Affine(((new, 1),)) for old, new in names.items()}
        output = Read(f"d_{self.operand}", tuple([compose(value, renamed) for value in access]))
        used = dict.fromkeys(read.tensor for read in reads(expression))
        shapes = {tensor: self.shapes[tensor] for tensor in used}
        given = self.undetermined(output, expression, sizes)
        return resolve(Equation(output, expression, tuple(sorted(given.items()))), shapes)

    def undetermined(
        self, output: Read, expression: Expression, sizes: dict[str, int]
    ) -> dict[str, int]:
        """The sizes that do not follow from an index standing alone in an axis."""
        alone: dict[str, set[int]] = {}
        for read in reads(expression):
            for value, size in zip(read.access, self.shapes[read.tensor], strict=True):
                if value.index:
                    alone.setdefault(value.index, set()).add(size)
        return {index: size for index, size in sizes.items() if alone.get(index) != {size}}

    def enclosed(self, node: Expression) -> Expression:
        """Reads outside all reductions that may be outside their boxes, each in a sum of its own.

        There such a read is 0; inside a reduction, where derivatives will stand, it would leave
        out the point.
        """
        match node:
            case Read() if self.outside(node):
                return Reduce("sum", (self.transposer.formal_index(),), node)
            case Apply(function, arguments):
                return Apply(function, tuple([self.enclosed(a) for a in arguments]))
            case _:
                return node

    def disclosed(self, node: Expression) -> Expression:
        """Undo `enclosed` where a read ended up outside all reductions again."""
        match node:
            case Reduce("sum", (index,), Read() as read) if index in self.formal:
                return read
            case Apply(function, arguments):
                return Apply(function, tuple([self.disclosed(a) for a in arguments]))
            case _:
                return node

    def outside(self, read: Read) -> bool:
        return may_be_outside(read, self.shapes[read.tensor], self.names.extents)

    def value(self, node: Expression) -> Expression:
        """The node's value at the same point: the output itself, or the expression again."""
        return self.output if node is self.root else self.names.copy(node)

    def push(
        self, node: Expression, c: Expression, scope: tuple[str, ...], guards: tuple[Read, ...]
    ) -> None:
        """Hand `c`, the derivative by `node` at the points of `scope`, down to the operand."""
        if c == ZERO or not contains(node, self.operand):
            return
        match node:
            case Read(_, access):
                self.contributions.append(Contribution(scope, c, guards, access))
            case Apply("multiply", (a, b)) if a == b:
                twice = times(Constant(2.0), self.names.copy(a))
                self.push(a, times(c, twice), scope, guards)
            case Apply(function, arguments):
                values = [self.names.copy(argument) for argument in arguments]
                y = self.value(node)
                for row, argument in zip(DERIVATIVES[function], arguments, strict=True):
                    if row is not None and contains(argument, self.operand):
                        self.push(argument, row(c, y, *values), scope, guards)
            case Reduce():
                self.push_reduce(node, c, scope, guards)
            case _:
                pass

    def push_reduce(
        self, node: Reduce, c: Expression, scope: tuple[str, ...], guards: tuple[Read, ...]
    ) -> None:
        """The same for a reduction, whose body has a derivative at each of its points."""
        free = free_indices(node)
        summed = [index for index in scope if index not in free]
        if summed:
            c = self.transposer.close(c, summed, guards)
            guards = ()
        match node.kind:
            case "mean":
                c = over(c, self.count(node))
            case "max" | "min":
                c = self.to_extremes(node, c)
            case "prod":
                c = times(c, self.product_of_others(node))
            case _:
                pass
        inner = tuple([index for index in scope if index in free]) + node.indices
        own = tuple([read for read in direct_reads(node.body) if self.outside(read)])
        self.push(node.body, c, inner, guards + own)

    def count(self, node: Reduce) -> Expression:
        """The number of points that a reduction keeps."""
        kept = [read for read in direct_reads(node.body) if self.outside(read)]
        if not kept:
            return Constant(float(prod(self.names.extents[index] for index in node.indices)))
        return self.names.copy(Reduce("sum", node.indices, self.present(ONE, kept)))

    def present(self, value: Expression, kept: Sequence[Read]) -> Expression:
        """`value`, which is not 0, written so that it is left out with the reads in `kept`."""
        for read in dict.fromkeys(kept):
            value = Apply("where", (less(read, ZERO), value, value))
        return value

    def to_extremes(self, node: Reduce, c: Expression) -> Expression:
        """The derivative by the body of a maximum: points that reach it share it evenly."""
        # The stored output is rounded; only a bare read compares equal to it.
        bare = isinstance(node.body, Read)
        y = self.value(node) if bare else self.names.copy(node)
        body = self.names.copy(node.body)
        # The largest value is compared again inside the count, where its own indices must differ.
        ties = self.names.copy(
            Reduce("sum", node.indices, where(equal(node.body, self.names.copy(y)), ONE))
        )
        return where(equal(body, y), over(c, ties))

    def product_of_others(self, node: Reduce) -> Expression:
        """The product over all other points of the reduction."""
        other = self.names.copy(node)
        assert isinstance(other, Reduce)
        factor: Expression = ONE
        for mine, theirs in zip(node.indices, other.indices, strict=True):
            same = equal(Position(mine), Position(theirs))
            factor = Apply("where", (same, factor, other.body))
        return Reduce("prod", other.indices, factor)
