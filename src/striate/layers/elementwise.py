"""Activations and sums: one number at a time."""

from striate.layers.apply import apply
from striate.layers.arguments import Operand, T, integer, shape_text

RELU = "y[...] = relu(x[...])"
RELU6 = "y[...] = clip(x[...], 0, 6)"
SIGMOID = "y[...] = sigmoid(x[...])"
ADD = "y[...] = x[...] + z[...]"
AFFINE = "y[..., i] = x[..., i] * A[i] + B[i]"
SOFTMAX_LARGEST = "m[{rest}] = max[i](x[{all}])"
SOFTMAX_TOTAL = "t[{rest}] = sum[i](exp(x[{all}] - m[{rest}]))"
SOFTMAX = "y[{all}] = exp(x[{all}] - m[{rest}]) / t[{rest}]"


def relu(input: T) -> T:
    """The input where it is positive, else 0; any shape."""
    return apply(RELU, {"x": input}, input, label="relu")


def relu6(input: T) -> T:
    """The input between 0 and 6; any shape."""
    return apply(RELU6, {"x": input}, input, label="relu6")


def sigmoid(input: T) -> T:
    """1 / (1 + exp(-x)); any shape."""
    return apply(SIGMOID, {"x": input}, input, label="sigmoid")


def add(input: T, other: Operand) -> T:
    """The sum of two tensors of one shape. Raises ValueError."""
    if tuple(input.shape) != tuple(other.shape):
        raise ValueError(
            f"add: shapes {shape_text(tuple(input.shape))} and {shape_text(tuple(other.shape))} "
            "differ; expected the same"
        )
    return apply(ADD, {"x": input, "z": other}, input, label="add")


def scale_and_shift(input: T, scale: Operand, shift: Operand) -> T:
    """Each feature times its own number plus another: `input[..., i]`, `scale[i]`, `shift[i]`."""
    operands = {"x": input, "A": scale, "B": shift}
    return apply(AFFINE, operands, input, label="scale_and_shift")


def dropout(input: T, p: float = 0.5) -> T:
    """The input: what dropout does when a network answers."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is {p}; expected a probability between 0 and 1")
    return input


def softmax(input: T, dim: int = -1) -> T:
    """exp(x) over its sum along axis `dim`, safe from overflow; any shape with axes."""
    rank = len(input.shape)
    axis = integer(dim, "softmax: dim", -rank) % max(rank, 1)
    if rank == 0 or dim >= rank:
        raise ValueError(
            f"softmax: dim is {dim}, but the input {shape_text(tuple(input.shape))} has {rank} axes"
        )
    names = _names(rank, axis)
    largest = apply(SOFTMAX_LARGEST.format_map(names), {"x": input}, input, label="softmax")
    operands = {"x": input, "m": largest}
    total = apply(SOFTMAX_TOTAL.format_map(names), operands, input, label="softmax")
    operands = {"x": input, "m": largest, "t": total}
    return apply(SOFTMAX.format_map(names), operands, input, label="softmax")


def _names(rank: int, axis: int) -> dict[str, str]:
    """Indices of all axes, i being that of `axis`, and of all axes but that."""
    rest = [f"a{number}" for number in range(rank) if number != axis]
    every = [*rest[:axis], "i", *rest[axis:]]
    return {"rest": ",".join(rest) or "()", "all": ",".join(every)}
