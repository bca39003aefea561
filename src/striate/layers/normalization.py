"""Normalisation by stored statistics, and by neighbouring features."""

from striate.layers.apply import apply
from striate.layers.arguments import Layout, Operand, T, image_shape, integer, shape_text

BATCH_NORM = "(x[..., i] - m[i]) / sqrt(v[i] + e)"
LOCAL_RESPONSE = (
    "y[b,p,q,i] = x[b,p,q,i]"
    " * exp(-beta * log(k + share * sum[j](x[b,p,q,i+j-h] * x[b,p,q,i+j-h])))"
)


def batch_norm(
    input: T,
    running_mean: Operand,
    running_var: Operand,
    weight: Operand | None = None,
    bias: Operand | None = None,
    *,
    eps: float = 1e-5,
    layout: Layout = "NHWC",
) -> T:
    """Each feature less its mean, over its standard deviation, times `weight` plus `bias`.

    `input[..., i]` (`[b,i,x,y]` with layout "NCHW"), all others `[i]`; epsilon is added to the
    variance, under the root. Raises ValueError.
    """
    shape = tuple(input.shape)
    features = shape[1] if layout == "NCHW" else shape[-1]
    operands = {"x": input, "m": running_mean, "v": running_var, "g": weight, "B": bias}
    names = {"m": "running_mean", "v": "running_var", "g": "weight", "B": "bias"}
    for letter, name in names.items():
        given = operands[letter]
        if given is not None and tuple(given.shape) != (features,):
            raise ValueError(
                f"batch_norm: {name} has shape {shape_text(tuple(given.shape))}; expected "
                f"[{features}], one number for each feature of the input {shape_text(shape)}"
            )
    text = f"y[..., i] = {BATCH_NORM}"
    text += " * g[i]" if weight is not None else ""
    text += " + B[i]" if bias is not None else ""
    return apply(
        text, operands, input, layout=layout, label="batch_norm", constants={"e": float(eps)}
    )


def local_response_norm(
    input: T,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    layout: Layout = "NHWC",
) -> T:
    """Each value over a power of the squares of its `size` neighbours among the features.

    `y = x / (k + alpha / size * sum of squares) ** beta`, `input[b,x,y,i]`; features beyond the
    edge count as 0. `k` must be positive. The paper's alpha (Krizhevsky et al. 2012, section 3.3)
    is alpha / size here. Raises ValueError.
    """
    image_shape("local_response_norm: input", tuple(input.shape), layout)
    size = integer(size, "local_response_norm: size", 1)
    if not k > 0:
        raise ValueError(f"local_response_norm: k is {k}; expected a positive number")
    return apply(
        LOCAL_RESPONSE,
        {"x": input},
        input,
        sizes={"j": size},
        layout=layout,
        label="local_response_norm",
        constants={"h": size // 2, "k": float(k), "share": alpha / size, "beta": float(beta)},
    )
