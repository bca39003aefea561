"""The notation: text to equation, and what an equation means."""

from striate.notation.adjoint import adjoint
from striate.notation.count import multiply_adds
from striate.notation.errors import NotationError
from striate.notation.interpret import interpret
from striate.notation.parse import parse
from striate.notation.printing import to_latex, to_text, to_unicode
from striate.notation.resolve import resolve

__all__ = [
    "NotationError",
    "adjoint",
    "interpret",
    "multiply_adds",
    "parse",
    "resolve",
    "to_latex",
    "to_text",
    "to_unicode",
]
