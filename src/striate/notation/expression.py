"""Building expressions, and asking what they depend on."""

import math
import operator
from collections.abc import Callable, Mapping

from striate.notation.ir import (
    Apply,
    Constant,
    Expression,
    Position,
    Read,
    Reduce,
    walk,
)

_FOLDED: Mapping[str, Callable[..., float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
}


def apply(function: str, *arguments: Expression) -> Expression:
    """The function applied; arithmetic on constants alone is done at once."""
    if function in _FOLDED:
        values = [node.value for node in arguments if isinstance(node, Constant)]
        if len(values) == len(arguments) and not (function == "divide" and values[1] == 0):
            folded = float(_FOLDED[function](*values))
            # Not a number equals nothing, not even itself, and would break the equation's.
            if not math.isnan(folded):
                return Constant(folded)
    return Apply(function, arguments)


def free_indices(expression: Expression) -> set[str]:
    """The indices that the value of `expression` depends on."""
    match expression:
        case Position(index):
            return {index}
        case Read(_, access):
            return {index for value in access for index, _ in value.terms}
        case Apply(_, arguments):
            return set().union(*map(free_indices, arguments))
        case Reduce(_, indices, body):
            return free_indices(body) - set(indices)
        case Constant():
            return set()


def direct_reads(expression: Expression) -> list[Read]:
    """The reads outside all reductions of `expression`: those that decide if a point is kept."""
    match expression:
        case Read():
            return [expression]
        case Apply(_, arguments):
            return [read for argument in arguments for read in direct_reads(argument)]
        case _:
            return []


def contains(expression: Expression, tensor: str) -> bool:
    """Whether `expression` reads `tensor`."""
    return any(isinstance(node, Read) and node.tensor == tensor for node in walk(expression))
