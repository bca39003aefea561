"""The notation: text to equation, and what an equation means."""

from striate.notation.errors import NotationError
from striate.notation.interpret import interpret
from striate.notation.parse import parse
from striate.notation.printing import to_text
from striate.notation.resolve import resolve

__all__ = [
    "NotationError",
    "interpret",
    "parse",
    "resolve",
    "to_text",
]
