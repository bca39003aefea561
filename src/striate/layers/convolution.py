"""Convolution in all its forms, and the matrix of its windows."""

from striate.layers.apply import apply
from striate.layers.arguments import (
    Layout,
    Operand,
    Pair,
    T,
    check_rank,
    image_shape,
    integer,
    pair,
    shape_text,
)
from striate.notation.ir import Shape

CONVOLUTION = "y[b,p,q,j] = sum[u,v,i](W[u,v,i,j] * x[b, s*p+d*u-a, t*q+e*v-c, i])"
GROUPED = "y[b,p,q,N*g+j] = sum[u,v,i](W[u,v,i,N*g+j] * x[b, s*p+d*u-a, t*q+e*v-c, M*g+i])"
DEPTHWISE = "y[b,p,q,g] = sum[u,v](W[u,v,0,g] * x[b, s*p+d*u-a, t*q+e*v-c, g])"
LINEAR = "y[..., j] = sum[i](W[i,j] * x[..., i])"
IM2COL = "z[b,p,q,u,v,i] = x[b, s*p+d*u-a, t*q+e*v-c, i]"


def conv2d(
    input: T,
    weight: Operand,
    bias: Operand | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NHWC",
) -> T:
    """Convolution (cross-correlation) of images with a bank of filters.

    `input[b,x,y,i]`, `weight[u,v,i,j]` with i counted within a group, `bias[j]`; the result is
    `[b,p,q,j]`. stride, padding and dilation in pixels, one number or (rows, columns); padding
    "same" keeps the size (divided by the stride, rounded up), "valid" is 0. With layout "NCHW"
    `input[b,i,x,y]`, `weight[j,i,u,v]`, the result `[b,j,p,q]`. Raises ValueError, TypeError.
    """
    _, rows, columns, features = image_shape("conv2d: input", tuple(input.shape), layout)
    kernel, per_group, filters = _filter_shape(tuple(weight.shape), layout)
    groups = integer(groups, "conv2d: groups", 1)
    if per_group * groups != features or filters % groups:
        raise ValueError(
            f"conv2d: input {shape_text(tuple(input.shape))} has {features} features and weight "
            f"{shape_text(tuple(weight.shape))} takes {per_group} in each of {groups} groups, for "
            f"{filters} filters; expected features = groups * {per_group}, and filters that the "
            f"groups divide (layout is {layout}: is that the arrays' order?)"
        )
    if bias is not None and tuple(bias.shape) != (filters,):
        raise ValueError(
            f"conv2d: bias has shape {shape_text(tuple(bias.shape))}; expected [{filters}], "
            "one number for each filter"
        )
    s, t = pair(stride, "conv2d: stride")
    d, e = pair(dilation, "conv2d: dilation")
    steps = {"s": s, "t": t, "d": d, "e": e}
    (a, c), sizes = _padding(padding, (rows, columns), kernel, (s, t), (d, e))
    if groups == 1:
        text, feature = CONVOLUTION, "j"
    elif per_group == 1 and filters == groups:
        text, feature = DEPTHWISE, "g"
    else:
        text, feature = GROUPED, "N*g+j"
        sizes |= {"g": groups, "j": filters // groups}
        steps |= {"M": per_group, "N": filters // groups}
    if bias is not None:
        text += f" + B[{feature}]"
    steps |= {"a": a, "c": c}
    operands = {"x": input, "W": weight, "B": bias}
    return apply(text, operands, input, sizes=sizes, layout=layout, label="conv2d", constants=steps)


def linear(input: T, weight: Operand, bias: Operand | None = None, *, layout: Layout = "NHWC") -> T:
    """Every output feature from every input feature: `input[..., i]`, `weight[i,j]`, `bias[j]`.

    With layout "NCHW" the weight is `[j,i]`, as other frameworks keep it. Raises ValueError.
    """
    check_rank("linear: weight", tuple(weight.shape), 2, "[i,j]")
    inputs, outputs = weight.shape if layout == "NHWC" else weight.shape[::-1]
    if not input.shape or input.shape[-1] != inputs:
        raise ValueError(
            f"linear: input {shape_text(tuple(input.shape))} and weight "
            f"{shape_text(tuple(weight.shape))} do not fit: the input's last axis must be {inputs}"
        )
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ValueError(
            f"linear: bias has shape {shape_text(tuple(bias.shape))}; expected [{outputs}]"
        )
    text = LINEAR if layout == "NHWC" else LINEAR.replace("W[i,j]", "W[j,i]")
    if bias is not None:
        text += " + B[j]"
    return apply(text, {"x": input, "W": weight, "B": bias}, input, label="linear")


def im2col(
    input: T,
    kernel_size: Pair,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
    *,
    layout: Layout = "NHWC",
) -> T:
    """All windows side by side: `[b,x,y,i]` becomes `[b,p,q,u,v,i]`, zeros outside the image.

    With layout "NCHW" `[b,i,x,y]` becomes `[b,i,u,v,p,q]`, torch's unfold before it joins the
    axes. Raises ValueError, TypeError.
    """
    image_shape("im2col: input", tuple(input.shape), layout)
    u, v = pair(kernel_size, "im2col: kernel_size")
    d, e = pair(dilation, "im2col: dilation")
    a, c = pair(padding, "im2col: padding", 0)
    s, t = pair(stride, "im2col: stride")
    constants = {"s": s, "t": t, "d": d, "e": e, "a": a, "c": c}
    return apply(
        IM2COL if layout == "NHWC" else IM2COL.replace("p,q,u,v,i", "i,u,v,p,q"),
        {"x": input},
        input,
        sizes={"u": u, "v": v},
        layout=layout,
        label="im2col",
        constants=constants,
    )


def _filter_shape(shape: Shape, layout: str) -> tuple[tuple[int, int], int, int]:
    """Kernel (rows, columns), features per group and number of filters."""
    if layout == "NCHW":
        check_rank("conv2d: weight", shape, 4, "[j,i,u,v] (filters, features per group, kernel)")
        return (shape[2], shape[3]), shape[1], shape[0]
    check_rank("conv2d: weight", shape, 4, "[u,v,i,j] (kernel, features per group, filters)")
    return (shape[0], shape[1]), shape[2], shape[3]


def _padding(
    padding: Pair | str,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], dict[str, int]]:
    """Padding on the top and left in pixels, and the output's size where the padding fixes it.

    "same" gives ceil(H / s) rows; of an odd padding the larger half is on the bottom and right.
    """
    if not isinstance(padding, str):
        return pair(padding, "conv2d: padding", 0), {}
    if padding == "valid":
        return (0, 0), {}
    if padding != "same":
        raise ValueError(
            f"conv2d: padding is {padding!r}; expected an integer, a pair, 'same' or 'valid'"
        )
    before, sizes = [], {}
    for name, h, k, s, d in zip("pq", image, kernel, stride, dilation, strict=True):
        sizes[name] = -(-h // s)
        before.append(max((sizes[name] - 1) * s + d * (k - 1) + 1 - h, 0) // 2)
    return (before[0], before[1]), sizes
