"""Equations as text that reads back to the same equation."""

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

_INFIX = {
    "less": (" < ", _COMPARE),
    "less_equal": (" <= ", _COMPARE),
    "equal": (" == ", _COMPARE),
    "not_equal": (" != ", _COMPARE),
    "add": (" + ", _ADD),
    "subtract": (" - ", _ADD),
    "multiply": (" * ", _MULTIPLY),
    "divide": (" / ", _MULTIPLY),
}


def to_text(equation: Equation) -> str:
    """The equation as `parse` reads it; its `sizes` are not part of the text."""
    return f"{read_text(equation.output)} = {expression_text(equation.expression)}"


def expression_text(expression: Expression) -> str:
    """An expression as it stands in an equation's text."""
    return _text(expression)[0]


def read_text(read: Read) -> str:
    """`x[b, 2*p+u-1, i]`: plain indices stand close together, sums are set apart."""
    axes = [affine_text(value) for value in read.access]
    separator = "," if all(value.index for value in read.access) else ", "
    return f"{read.tensor}[{separator.join(axes) or '()'}]"


def affine_text(value: Affine) -> str:
    """`2*p+u-1`, `p//2`, `(p+1)/2`."""
    text = ""
    for index, coefficient in value.terms:
        size = "" if abs(coefficient) == 1 else f"{abs(coefficient)}*"
        text += f"{_sign(coefficient, text)}{size}{index}"
    if value.offset or not text:
        text += f"{_sign(value.offset, text)}{abs(value.offset)}"
    if value.divisor == 1:
        return text
    if len(value.terms) > 1 or value.offset:
        text = f"({text})"
    return f"{text}{'/' if value.exact else '//'}{value.divisor}"


def number_text(value: float) -> str:
    """A number in as few characters as give it back exactly."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)


def _sign(number: int, before: str) -> str:
    return "-" if number < 0 else "+" if before else ""


def _text(expression: Expression) -> tuple[str, int]:
    """The text and how tightly it binds."""
    match expression:
        case Constant(value):
            return number_text(value), _NEGATE if value < 0 else _ATOM
        case Position(index):
            return index, _ATOM
        case Read():
            return read_text(expression), _ATOM
        case Reduce(kind, indices, body):
            return f"{kind}[{','.join(indices)}]({_text(body)[0]})", _ATOM
        case Apply("negative", (argument,)):
            return f"-{_within(argument, _NEGATE)}", _NEGATE
        case Apply(function, (left, right)) if function in _INFIX:
            symbol, level = _INFIX[function]
            # Python chains comparisons, so neither of their sides may be one.
            first = _within(left, level + (level == _COMPARE))
            return f"{first}{symbol}{_within(right, level + 1)}", level
        case Apply(function, arguments):
            return f"{function}({', '.join(_text(a)[0] for a in arguments)})", _ATOM


def _within(expression: Expression, level: int) -> str:
    """The text, in brackets where it binds less tightly than `level`."""
    text, own = _text(expression)
    return text if own >= level else f"({text})"
