"""Element-wise expressions as vector code, each function of the notation in one row of a table."""

from collections.abc import Callable, Mapping

from striate.compiler import elementary
from striate.compiler.builder import Builder, Value
from striate.notation.ir import Apply, Constant, Expression

Leaf = Callable[[Expression], Value]


def emit_expression(builder: Builder, expression: Expression, leaf: Leaf) -> Value:
    """The vector that `expression` is worth; reads, positions and reductions come from `leaf`."""
    match expression:
        case Constant(value):
            return builder.splat(value)
        case Apply(function, arguments):
            values = [emit_expression(builder, argument, leaf) for argument in arguments]
            return _FUNCTIONS[function](builder, *values)
        case _:
            return leaf(expression)


def _binary(operation: str) -> Callable[..., Value]:
    return lambda b, x, y: b.emit(f"{operation} {b.vector} {x}, {y}")


def _intrinsic(name: str, flags: str = "") -> Callable[..., Value]:
    def emit(b: Builder, *values: Value) -> Value:
        arguments = [f"{b.vector} {value}" for value in values]
        return b.call(b.vector, f"llvm.{name}.v{b.target.lanes}f32", *arguments, flags=flags)

    return emit


def _comparison(predicate: str) -> Callable[..., Value]:
    def emit(b: Builder, x: Value, y: Value) -> Value:
        truth = b.emit(f"fcmp {predicate} {b.vector} {x}, {y}")
        return b.emit(f"uitofp <{b.target.lanes} x i1> {truth} to {b.vector}")

    return emit


def _select(b: Builder, predicate: str, x: Value, y: Value, then: Value, other: Value) -> Value:
    truth = b.emit(f"fcmp {predicate} {b.vector} {x}, {y}")
    return b.emit(f"select <{b.target.lanes} x i1> {truth}, {b.vector} {then}, {b.vector} {other}")


def _relu(b: Builder, x: Value) -> Value:
    """`0 > x ? 0 : x`: one instruction, and a NaN stays one."""
    return _select(b, "ogt", b.zero(), x, b.zero(), x)


def _clip(b: Builder, x: Value, low: Value, high: Value) -> Value:
    raised = _select(b, "ogt", low, x, low, x)
    return _select(b, "olt", high, raised, high, raised)


def _where(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    return _select(b, "une", condition, b.zero(), x, y)


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "add": _binary("fadd"),
    "subtract": _binary("fsub"),
    "multiply": _binary("fmul"),
    "divide": _binary("fdiv"),
    "negative": lambda b, x: b.emit(f"fneg {b.vector} {x}"),
    # As in NumPy, a NaN wins, and it is not said which of two zeros does: half the instructions.
    "maximum": _intrinsic("maximum", "nsz"),
    "minimum": _intrinsic("minimum", "nsz"),
    "relu": _relu,
    "clip": _clip,
    "sqrt": _intrinsic("sqrt"),
    "abs": _intrinsic("fabs"),
    "exp": elementary.exp,
    "log": elementary.log,
    "tanh": elementary.tanh,
    "sigmoid": elementary.sigmoid,
    "less": _comparison("olt"),
    "less_equal": _comparison("ole"),
    "equal": _comparison("oeq"),
    "not_equal": _comparison("une"),
    "where": _where,
}

# How a reduction takes one more value, and the function it is.
COMBINE: Mapping[str, Callable[..., Value]] = {
    "sum": _FUNCTIONS["add"],
    "mean": _FUNCTIONS["add"],
    "prod": _FUNCTIONS["multiply"],
    "max": _FUNCTIONS["maximum"],
    "min": _FUNCTIONS["minimum"],
}
