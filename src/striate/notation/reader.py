"""Python's syntax tree of an equation to the nodes of the notation."""

import ast
import difflib
import math
from collections.abc import Mapping

from striate.notation import access
from striate.notation.errors import NotationError
from striate.notation.expression import apply
from striate.notation.ir import (
    FUNCTIONS,
    IDENTITIES,
    Affine,
    Constant,
    Expression,
    Position,
    Read,
    Reduce,
)

Number = int | float

_OPERATORS: Mapping[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
}

# A comparison becomes a function of its two sides, or of the two sides swapped.
_COMPARISONS: Mapping[type[ast.cmpop], tuple[str, bool]] = {
    ast.Lt: ("less", False),
    ast.LtE: ("less_equal", False),
    ast.Gt: ("less", True),
    ast.GtE: ("less_equal", True),
    ast.Eq: ("equal", False),
    ast.NotEq: ("not_equal", False),
}

# Deeper nesting than this is no equation that a person wrote, and would exhaust Python's stack.
_DEEPEST = 120

# Places beyond this are in no tensor, and would not fit the integers of machine code.
_FARTHEST = 1 << 31


class Reader:
    """Reads one equation's syntax tree; holds which indices are in scope."""

    def __init__(self, text: str, constants: Mapping[str, Number]) -> None:
        self.text = text
        self.constants = constants
        self.used: set[str] = set()
        self.indices: list[str] = []
        self.scope: list[str] = []
        self.tensor = ""
        self.depth = 0

    def error(self, problem: str) -> NotationError:
        return NotationError(problem, self.text)

    def bind(self, names: list[str], where: str) -> None:
        """Bring indices into scope."""
        for name in names:
            if name in self.constants:
                raise self.error(
                    f"{name} is an index of {where} and a constant ({self.constants[name]}); "
                    "rename one of them"
                )
            if name in self.scope:
                raise self.error(
                    f"index {name} of {where} is already in use around it; use another letter"
                )
            if name not in self.indices:
                self.indices.append(name)
            self.scope.append(name)

    def output(self, node: ast.expr) -> Read:
        """The left side; its indices come into scope."""
        if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
            raise self.error(
                "the left side must be a tensor with its indices, like y[b,p] (or y[()], a number)"
            )
        self.tensor = node.value.id
        read = self.read(node, binds=True)
        repeated = [index for value in read.access for index, _ in value.terms]
        for index in repeated:
            if repeated.count(index) > 1:
                raise self.error(
                    f"index {index} occurs more than once in the output {self.tensor}; "
                    "every output index stands in one place"
                )
        for value in read.access:
            if value.divisor > 1 or any(c < 0 for _, c in value.terms):
                raise self.error(
                    f"the output {self.tensor} may be indexed by sums like N*g+j only: "
                    "divide or turn around on the right side instead"
                )
        self.bind(repeated, "the output")
        return read

    def read(self, node: ast.Subscript, binds: bool = False) -> Read:
        """A tensor with its indices; on the left side (`binds`) every name is an index."""
        if not isinstance(node.value, ast.Name):
            raise self.error(f"{ast.unparse(node)}: only a tensor's name can be indexed")
        name = node.value.id
        if name in IDENTITIES:
            raise self.error(f"{name} is a reduction: write {name}[indices](expression)")
        if not binds and name == self.tensor:
            raise self.error(f"{name} is the output and cannot be read in its own equation")
        axes = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        places = tuple([self.index(axis, node, binds) for axis in axes])
        for place in places:
            numbers = [place.offset, place.divisor, *[c for _, c in place.terms]]
            if max(map(abs, numbers)) >= _FARTHEST:
                raise self.error(f"an index of {name} holds a number of {_FARTHEST} or more")
        return Read(name, places)

    def index(self, node: ast.expr, around: ast.expr, binds: bool) -> Affine:
        """An affine function of indices in scope."""
        match node:
            case ast.Constant(value) if type(value) is int:
                return Affine((), value)
            case ast.Name(name) if name in self.constants:
                self.used.add(name)
                value = self.constants[name]
                if not isinstance(value, int):
                    raise self.error(
                        f"constant {name} is {value}, but it stands in an index "
                        f"({ast.unparse(around)}), where constants are integers"
                    )
                return Affine((), value)
            case ast.Name(name):
                if not binds and name not in self.scope:
                    raise self.error(
                        f"index {name} in {ast.unparse(around)} is neither an index of the output "
                        f"nor reduced; reduce over it, or bind it as a constant: {name}=..."
                    )
                return access.single(name)
            case ast.UnaryOp(ast.UAdd(), operand):
                return self.index(operand, around, binds)
            case ast.UnaryOp(ast.USub(), operand):
                result = access.scale(self.index(operand, around, binds), -1)
            case ast.BinOp(left, kind, right):
                sides = self.index(left, around, binds), self.index(right, around, binds)
                result = _combine(kind, *sides)
            case _:
                result = None
        if result is None:
            raise self.error(
                f"{ast.unparse(node)} in {ast.unparse(around)} is not affine: an index expression "
                "is a sum of indices times integer constants, as a whole divided by a constant "
                "(// rounds down, / must leave no remainder); constants are bound by keyword"
            )
        return result

    def expression(self, node: ast.expr) -> Expression:
        """The right side or a part of it."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error(f"the expression is nested more than {_DEEPEST} deep")
        result = self._expression(node)
        self.depth -= 1
        return result

    def _expression(self, node: ast.expr) -> Expression:
        match node:
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                return Constant(float(value))
            case ast.Name(name):
                return self.name(name)
            case ast.Subscript():
                return self.read(node)
            case ast.UnaryOp(ast.USub(), operand):
                return apply("negative", self.expression(operand))
            case ast.UnaryOp(ast.UAdd(), operand):
                return self.expression(operand)
            case ast.BinOp(left, ast.Pow(), right):
                return self.power(node, self.expression(left), self.expression(right))
            case ast.BinOp(left, kind, right) if type(kind) in _OPERATORS:
                return apply(_OPERATORS[type(kind)], self.expression(left), self.expression(right))
            case ast.Compare(left, [comparison], [right]) if type(comparison) in _COMPARISONS:
                function, swapped = _COMPARISONS[type(comparison)]
                sides = self.expression(left), self.expression(right)
                return apply(function, *(sides[::-1] if swapped else sides))
            case ast.Compare():
                raise self.error(f"{ast.unparse(node)}: compare two numbers at a time")
            case ast.IfExp(test, body, orelse):
                parts = [self.expression(part) for part in (test, body, orelse)]
                return apply("where", *parts)
            case ast.Call(ast.Name(name), arguments, []):
                return self.call(name, arguments, node)
            case ast.Call(ast.Subscript(ast.Name(kind), indices), [body], []):
                return self.reduce(kind, indices, body, node)
            case _:
                raise self.error(f"{ast.unparse(node)} is not part of the notation")

    def name(self, name: str) -> Expression:
        """A constant, or the value of an index."""
        if name in self.constants:
            self.used.add(name)
            return Constant(float(self.constants[name]))
        if name in self.scope:
            return Position(name)
        if name == "inf":
            return Constant(math.inf)
        raise self.error(
            f"{name} is unbound: bind it as a constant ({name}=...), "
            f"or index it if it is a tensor ({name}[...], {name}[()] for a single number)"
        )

    def power(self, node: ast.BinOp, base: Expression, exponent: Expression) -> Expression:
        """A constant power, said in the functions of the notation."""
        match exponent:
            case Constant(value) if value in (2, 3, 4):
                result = base
                for _ in range(int(value) - 1):
                    result = apply("multiply", result, base)
                return result
            case Constant(0.5):
                return apply("sqrt", base)
            case Constant():
                return apply("exp", apply("multiply", exponent, apply("log", base)))
            case _:
                raise self.error(f"{ast.unparse(node)}: the exponent must be a constant")

    def call(self, name: str, arguments: list[ast.expr], node: ast.expr) -> Expression:
        """A function of the notation."""
        if name not in FUNCTIONS:
            if name in IDENTITIES:
                hint = f"; a reduction names its indices: {name}[...](...)"
                if name in ("max", "min"):
                    hint += f", and {name}imum(a, b) takes the {name}imum of two numbers"
            else:
                close = difflib.get_close_matches(name, FUNCTIONS, 1)
                hint = f"; did you mean {close[0]}?" if close else f" ({', '.join(FUNCTIONS)})"
            raise self.error(f"there is no function {name}{hint}")
        if len(arguments) != FUNCTIONS[name]:
            raise self.error(
                f"{name} takes {FUNCTIONS[name]} arguments, not {len(arguments)}: "
                f"{ast.unparse(node)}"
            )
        return apply(name, *[self.expression(argument) for argument in arguments])

    def reduce(self, kind: str, indices: ast.expr, body: ast.expr, node: ast.expr) -> Expression:
        """A reduction; its indices are in scope inside it only."""
        if kind not in IDENTITIES:
            close = difflib.get_close_matches(kind, IDENTITIES, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(IDENTITIES)}"
            raise self.error(f"there is no reduction {kind}; {hint}")
        elements = indices.elts if isinstance(indices, ast.Tuple) else [indices]
        names = [element.id for element in elements if isinstance(element, ast.Name)]
        if not names or len(names) != len(elements):
            raise self.error(
                f"{kind}[{ast.unparse(indices)}] must name the indices to reduce, like {kind}[u,v]"
            )
        self.bind(names, f"{kind}[{','.join(names)}]")
        inner = self.expression(body)
        del self.scope[-len(names) :]
        return Reduce(kind, tuple(names), inner)


def _combine(kind: ast.operator, left: Affine, right: Affine) -> Affine | None:
    """Two index expressions joined by an operator; None where the result is not affine."""
    constant = right.offset if not right.terms and right.divisor == 1 else None
    match kind:
        case ast.Add():
            return access.add(left, right)
        case ast.Sub():
            negated = access.scale(right, -1)
            return None if negated is None else access.add(left, negated)
        case ast.Mult() if constant is not None:
            return access.scale(left, constant)
        case ast.Mult() if not left.terms and left.divisor == 1:
            return access.scale(right, left.offset)
        case ast.FloorDiv() | ast.Div() if constant is not None and constant > 0:
            exact = isinstance(kind, ast.Div)
            if exact and not left.terms and left.offset % constant:
                return None
            return access.divide(left, constant, exact)
        case _:
            return None
