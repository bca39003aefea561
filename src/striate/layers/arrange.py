"""Moving values without changing them: concatenation, shuffling, flattening."""

from collections.abc import Sequence
from typing import cast

from striate.layers import scope
from striate.layers.apply import apply, evaluate
from striate.layers.arguments import (
    Layout,
    Operand,
    T,
    as_float32,
    image_shape,
    integer,
    is_node,
    shape_text,
)
from striate.network.graph import Concatenated, Graph, Input, Node, Parameter
from striate.notation.ir import Shape

SHUFFLE = "y[b,p,q,G*i+g] = x[b,p,q,N*g+i]"
SLICE = "y[..., i] = x[..., i+o]"
FLATTEN = "y[b, P*Q*i+Q*p+q] = x[b,p,q,i]"
FLATTEN_ROWS = "y[b, N*p+i] = x[b,p,i]"
TO_CHANNELS_FIRST = "y[b,i,p,q] = x[b,p,q,i]"
TO_CHANNELS_LAST = "y[b,p,q,i] = x[b,i,p,q]"


def concatenate(inputs: Sequence[T], axis: int = -1) -> T:
    """The inputs one after another along `axis`; their other axes must agree. Raises ValueError."""
    if not inputs:
        raise ValueError("concatenate: no inputs; expected at least one")
    shapes: list[Shape] = [tuple(part.shape) for part in inputs]
    rank = len(shapes[0])
    number: int = integer(axis, "concatenate: axis", -rank)
    if number >= rank:
        raise ValueError(f"concatenate: axis is {axis}, but the inputs have {rank} axes")
    number %= rank
    if any(_without(shape, number) != _without(shapes[0], number) for shape in shapes):
        raise ValueError(
            f"concatenate: shapes {', '.join(map(shape_text, shapes))} differ in more than axis "
            f"{number}"
        )
    if len(inputs) == 1:
        return inputs[0]
    result: Operand
    if any(is_node(part) for part in inputs):
        result = _joined([_as_node(part, k) for k, part in enumerate(inputs)], number)
    else:
        arrays = [as_float32(part, "concatenate: input") for part in inputs]
        given = [Input(f"x{k}", tuple(part.shape)) for k, part in enumerate(arrays)]
        (result,) = evaluate(Graph(tuple(given), (_joined(given, number),)), arrays)
    return cast(T, result)


def channel_shuffle(input: T, groups: int, *, layout: Layout = "NHWC") -> T:
    """The features dealt out: feature i of group g goes to place `groups * i + g`.

    `input[b,x,y,i]`; the groups must divide the features. Raises ValueError.
    """
    features = image_shape("channel_shuffle: input", tuple(input.shape), layout)[3]
    groups = integer(groups, "channel_shuffle: groups", 1)
    if features % groups:
        raise ValueError(f"channel_shuffle: {groups} groups do not divide {features} features")
    size = features // groups
    sizes = {"g": groups, "i": size}
    return apply(
        SHUFFLE,
        {"x": input},
        input,
        sizes=sizes,
        layout=layout,
        label="channel_shuffle",
        constants={"G": groups, "N": size},
    )


def take_features(input: T, start: int, stop: int) -> T:
    """Features `start` to `stop` (not included) of the last axis. Raises ValueError."""
    features = input.shape[-1]
    if not 0 <= start < stop <= features:
        raise ValueError(
            f"take_features: {start} to {stop} does not lie within the {features} features of the "
            f"input {shape_text(tuple(input.shape))}"
        )
    sizes = {"i": stop - start}
    return apply(
        SLICE, {"x": input}, input, sizes=sizes, label="take_features", constants={"o": start}
    )


def flatten(input: T, *, layout: Layout = "NHWC") -> T:
    """All features of an image in a row, feature by feature as torch does: `[b, i*x*y]`.

    Also takes `[b,p,i]`, row by row, and leaves `[b,i]` as it is.
    """
    shape = tuple(input.shape)
    if len(shape) == 2:
        return input
    if len(shape) == 3:
        return apply(FLATTEN_ROWS, {"x": input}, input, label="flatten", constants={"N": shape[2]})
    _, rows, columns, _ = image_shape("flatten: input", shape, layout)
    return apply(
        FLATTEN,
        {"x": input},
        input,
        layout=layout,
        label="flatten",
        constants={"P": rows, "Q": columns},
    )


def to_channels_last(input: T) -> T:
    """`[b,i,x,y]` to `[b,x,y,i]`."""
    return apply(TO_CHANNELS_LAST, {"x": input}, input, label="to_channels_last")


def to_channels_first(input: T) -> T:
    """`[b,x,y,i]` to `[b,i,x,y]`."""
    return apply(TO_CHANNELS_FIRST, {"x": input}, input, label="to_channels_first")


def _without(shape: Shape, axis: int) -> Shape:
    """The sizes of all axes but one."""
    return (*shape[:axis], *shape[axis + 1 :])


def _as_node(part: Operand, number: int) -> Node:
    if is_node(part):
        return cast(Node, part)
    return Parameter(f"concatenate.{number}", as_float32(part, "concatenate: input"))


def _joined(parts: Sequence[Node], axis: int) -> Concatenated:
    drawing = scope.current()
    label = drawing.label("concatenate") if drawing is not None else "concatenate"
    return Concatenated(tuple(parts), axis, label)
