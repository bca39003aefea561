"""Equations as text that reads back to the same equation, as Unicode, and as LaTeX.

One walk over the expression decides the brackets; a `_Style` says how each form is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Equation,
    Expression,
    Position,
    Read,
    Reduce,
)

# How tightly each kind of text binds; the operands of an operator bind at least as tightly.
_COMPARE, _ADD, _MULTIPLY, _NEGATE, _ATOM = range(1, 6)

_LEVELS = {
    "less": _COMPARE,
    "less_equal": _COMPARE,
    "equal": _COMPARE,
    "not_equal": _COMPARE,
    "add": _ADD,
    "subtract": _ADD,
    "multiply": _MULTIPLY,
    "divide": _MULTIPLY,
}


def to_text(equation: Equation) -> str:
    """The equation as `parse` reads it; its `sizes` are not part of the text."""
    return _TEXT.equation(equation)


def to_unicode(equation: Equation) -> str:
    """The equation as one would write it by hand: `y[b,p] = Σᵤ (W[u]·x[b, p+u−1])`."""
    return _UNICODE.equation(equation)


def to_latex(equation: Equation) -> str:
    r"""The equation for a LaTeX formula: `y_{b,p} = \sum_{u} W_{u}\, x_{b,p+u-1}`."""
    return _LATEX.equation(equation)


def read_text(read: Read) -> str:
    """`x[b, 2*p+u-1, i]`: plain indices stand close together, sums are set apart."""
    return _TEXT.read(read)


def affine_text(value: Affine) -> str:
    """`2*p+u-1`, `p//2`, `(p+1)/2`."""
    return _TEXT.affine(value)


@dataclass(frozen=True, slots=True)
class _Style:
    """Plain text; the other styles say what they write differently."""

    symbols: Mapping[str, str]
    minus: str = "-"
    times: str = "*"

    def equation(self, equation: Equation) -> str:
        return f"{self.read(equation.output)} = {self.expression(equation.expression)[0]}"

    def name(self, name: str) -> str:
        return name

    def read(self, read: Read) -> str:
        axes = [self.affine(value) for value in read.access]
        separator = "," if all(value.index for value in read.access) else ", "
        return f"{self.name(read.tensor)}[{separator.join(axes) or '()'}]"

    def affine(self, value: Affine) -> str:
        text = ""
        for index, coefficient in value.terms:
            size = "" if abs(coefficient) == 1 else f"{abs(coefficient)}{self.times}"
            text += f"{self.sign(coefficient, text)}{size}{self.name(index)}"
        if value.offset or not text:
            text += f"{self.sign(value.offset, text)}{abs(value.offset)}"
        return text if value.divisor == 1 else self.division(text, value)

    def sign(self, number: int, before: str) -> str:
        return self.minus if number < 0 else "+" if before else ""

    def division(self, text: str, value: Affine) -> str:
        """`text`, the sum of `value`, over its divisor."""
        if len(value.terms) > 1 or value.offset or not value.terms:
            text = f"({text})"
        return f"{text}{'/' if value.exact else '//'}{value.divisor}"

    def number(self, value: float) -> str:
        whole = abs(value) < 1e15 and value == int(value)
        return str(int(value)) if whole else repr(value)

    def expression(self, expression: Expression) -> tuple[str, int]:
        """The text of `expression` and how tightly it binds."""
        match expression:
            case Constant(value):
                return self.number(value), _NEGATE if value < 0 else _ATOM
            case Position(index):
                return self.name(index), _ATOM
            case Read():
                return self.read(expression), _ATOM
            case Reduce():
                return self.reduce(expression)
            case Apply("negative", (argument,)):
                return f"{self.minus}{self.within(argument, _NEGATE)}", _NEGATE
            case Apply(function, (left, right)) if function in _LEVELS:
                return self.infix(function, left, right)
            case Apply(function, arguments):
                return self.call(function, [self.expression(a)[0] for a in arguments])

    def infix(self, function: str, left: Expression, right: Expression) -> tuple[str, int]:
        """An operator between its operands."""
        level = _LEVELS[function]
        # Python chains comparisons, so neither of their sides may be one.
        first = self.within(left, level + (level == _COMPARE))
        return f"{first}{self.symbols[function]}{self.within(right, level + 1)}", level

    def call(self, function: str, arguments: list[str]) -> tuple[str, int]:
        return f"{function}({', '.join(arguments)})", _ATOM

    def reduce(self, node: Reduce) -> tuple[str, int]:
        body = self.expression(node.body)[0]
        return f"{node.kind}[{','.join(node.indices)}]({body})", _ATOM

    def within(self, expression: Expression, level: int) -> str:
        """The text, in brackets where it binds less tightly than `level`."""
        text, own = self.expression(expression)
        return text if own >= level else self.brackets(text)

    def brackets(self, text: str) -> str:
        return f"({text})"


class _Unicode(_Style):
    """Mathematical signs; subscripts where Unicode has the letters."""

    __slots__ = ()

    _LOWERED: Mapping[str, str] = dict(
        zip("aehijklmnoprstuvx0123456789", "ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₀₁₂₃₄₅₆₇₈₉", strict=True)
    )
    _KINDS: Mapping[str, str] = {"sum": "Σ", "prod": "Π"}

    def division(self, text: str, value: Affine) -> str:
        if not value.exact:
            return f"⌊{text}/{value.divisor}⌋"
        return _Style.division(self, text, value)

    def number(self, value: float) -> str:
        if abs(value) == float("inf"):
            return "∞" if value > 0 else "−∞"
        return _Style.number(self, value).replace("-", self.minus)

    def call(self, function: str, arguments: list[str]) -> tuple[str, int]:
        match function, arguments:
            case "sqrt", [argument]:
                return f"√({argument})", _ATOM
            case "abs", [argument]:
                return f"|{argument}|", _ATOM
            case "sigmoid", [argument]:
                return f"σ({argument})", _ATOM
            case _:
                return _Style.call(self, function, arguments)

    def reduce(self, node: Reduce) -> tuple[str, int]:
        names = "".join(node.indices)
        if all(letter in self._LOWERED for letter in names):
            under = "".join(self._LOWERED[letter] for letter in names)
        else:
            under = f"[{','.join(node.indices)}]"
        kind = self._KINDS.get(node.kind, node.kind)
        return f"{kind}{under} ({self.expression(node.body)[0]})", _ATOM


class _Latex(_Style):
    """Formulas: fractions, roots, cases, big operators."""

    __slots__ = ()

    _KINDS: Mapping[str, str] = {
        "sum": r"\sum",
        "prod": r"\prod",
        "max": r"\max",
        "min": r"\min",
        "mean": r"\operatorname*{mean}",
    }
    _NAMES: Mapping[str, str] = {
        "exp": r"\exp",
        "log": r"\log",
        "tanh": r"\tanh",
        "sigmoid": r"\sigma",
        "maximum": r"\max",
        "minimum": r"\min",
    }

    def name(self, name: str) -> str:
        if len(name) == 1:
            return name
        escaped = name.replace("_", r"\_")
        return rf"\mathrm{{{escaped}}}"

    def read(self, read: Read) -> str:
        name = self.name(read.tensor)
        return (
            rf"{name}_{{{','.join(self.affine(v) for v in read.access)}}}" if read.access else name
        )

    def division(self, text: str, value: Affine) -> str:
        if not value.exact:
            return rf"\lfloor {text} / {value.divisor} \rfloor"
        return _Style.division(self, text, value)

    def number(self, value: float) -> str:
        if abs(value) == float("inf"):
            return r"\infty" if value > 0 else r"-\infty"
        mantissa, mark, exponent = _Style.number(self, value).partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if mark else mantissa

    def infix(self, function: str, left: Expression, right: Expression) -> tuple[str, int]:
        if function == "divide":
            over = self.expression(left)[0], self.expression(right)[0]
            return rf"\frac{{{over[0]}}}{{{over[1]}}}", _ATOM
        if function == "multiply":
            # After a big operator the product would belong to it; two numbers would read as one.
            first = self.within(left, _ATOM if isinstance(left, Reduce) else _MULTIPLY)
            sign = r" \cdot " if isinstance(right, Constant) else self.symbols[function]
            return f"{first}{sign}{self.within(right, _NEGATE)}", _MULTIPLY
        return _Style.infix(self, function, left, right)

    def call(self, function: str, arguments: list[str]) -> tuple[str, int]:
        inside = ", ".join(arguments)
        match function:
            case "sqrt":
                return rf"\sqrt{{{inside}}}", _ATOM
            case "abs":
                return rf"\left| {inside} \right|", _ATOM
            case "where":
                test, first, second = arguments
                rows = rf"{first} & \text{{if }} {test} \\ {second} & \text{{otherwise}}"
                return rf"\begin{{cases}} {rows} \end{{cases}}", _ATOM
            case _:
                name = self._NAMES.get(function, rf"\operatorname{{{self.escaped(function)}}}")
                return f"{name}{self.brackets(inside)}", _ATOM

    def escaped(self, function: str) -> str:
        return function.replace("_", r"\_")

    def reduce(self, node: Reduce) -> tuple[str, int]:
        # A product needs no brackets after the sign of the sum; a sum does.
        body = self.within(node.body, _MULTIPLY)
        under = ",".join(map(self.name, node.indices))
        # What follows a big operator belongs to it, so it binds like a product.
        return rf"{self._KINDS[node.kind]}_{{{under}}} {body}", _MULTIPLY

    def brackets(self, text: str) -> str:
        return rf"\left( {text} \right)"


_TEXT = _Style(
    {
        "less": " < ",
        "less_equal": " <= ",
        "equal": " == ",
        "not_equal": " != ",
        "add": " + ",
        "subtract": " - ",
        "multiply": " * ",
        "divide": " / ",
    }
)
_UNICODE = _Unicode(
    {
        "less": " < ",
        "less_equal": " ≤ ",
        "equal": " = ",
        "not_equal": " ≠ ",
        "add": " + ",
        "subtract": " − ",
        "multiply": "·",
        "divide": " / ",
    },
    minus="−",
    times="",
)
_LATEX = _Latex(
    {
        "less": " < ",
        "less_equal": r" \le ",
        "equal": " = ",
        "not_equal": r" \ne ",
        "add": " + ",
        "subtract": " - ",
        "multiply": r" \, ",
        "divide": " / ",
    },
    times=" ",
)
