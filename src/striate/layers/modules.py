"""The layers as modules: they hold what the functions of the same names are given."""

from typing import ClassVar

from striate.layers import arrange, convolution, elementwise, normalization, pooling, resize
from striate.layers.arguments import Array, Pair, integer, pair
from striate.layers.initial import Initial, fan_in_uniform
from striate.layers.module import Module
from striate.layers.resize import Scale
from striate.network.graph import Node


class Conv2d(Module):
    """`conv2d` with `weight[u,v,i,j]` and, if wanted, `bias[j]`; all arguments as there."""

    state_axes: ClassVar = {"weight": (3, 2, 0, 1)}
    weight: Array
    bias: Array | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        inputs = integer(in_channels, "Conv2d: in_channels", 1)
        outputs = integer(out_channels, "Conv2d: out_channels", 1)
        groups = integer(groups, "Conv2d: groups", 1)
        if inputs % groups or outputs % groups:
            raise ValueError(f"Conv2d: {groups} groups do not divide {inputs} and {outputs}")
        rows, columns = pair(kernel_size, "Conv2d: kernel_size")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        fan_in = rows * columns * inputs // groups
        _set(self, "weight", fan_in_uniform((rows, columns, inputs // groups, outputs), fan_in))
        _set(self, "bias", fan_in_uniform((outputs,), fan_in) if bias else None)

    def forward(self, input: Node) -> Node:
        return convolution.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class Linear(Module):
    """`linear` with `weight[i,j]` and, if wanted, `bias[j]`."""

    state_axes: ClassVar = {"weight": (1, 0)}
    weight: Array
    bias: Array | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        inputs = integer(in_features, "Linear: in_features", 1)
        outputs = integer(out_features, "Linear: out_features", 1)
        _set(self, "weight", fan_in_uniform((inputs, outputs), inputs))
        _set(self, "bias", fan_in_uniform((outputs,), inputs) if bias else None)

    def forward(self, input: Node) -> Node:
        return convolution.linear(input, self.weight, self.bias)


class BatchNorm2d(Module):
    """`batch_norm` by stored statistics; `momentum` is for training alone."""

    buffers: ClassVar = frozenset({"running_mean", "running_var", "num_batches_tracked"})
    weight: Array
    bias: Array
    running_mean: Array
    running_var: Array

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        shape = (integer(num_features, "BatchNorm2d: num_features", 1),)
        self.eps, self.momentum = eps, momentum
        _set(self, "weight", Initial(shape, "ones"))
        _set(self, "bias", Initial(shape, "zeros"))
        _set(self, "running_mean", Initial(shape, "zeros"))
        _set(self, "running_var", Initial(shape, "ones"))
        _set(self, "num_batches_tracked", Initial((), "counter"))

    def forward(self, input: Node) -> Node:
        return normalization.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class LocalResponseNorm(Module):
    """`local_response_norm`; all arguments as there."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Node) -> Node:
        return normalization.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class MaxPool2d(Module):
    """`max_pool2d`; all arguments as there."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, input: Node) -> Node:
        return pooling.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )


class AvgPool2d(Module):
    """`avg_pool2d`; all arguments as there."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: Pair = 1,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override, self.dilation = divisor_override, dilation

    def forward(self, input: Node) -> Node:
        return pooling.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            dilation=self.dilation,
        )


class AdaptiveAvgPool2d(Module):
    """`adaptive_avg_pool2d` to `output_size` (rows, columns)."""

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        self.output_size = output_size

    def forward(self, input: Node) -> Node:
        return pooling.adaptive_avg_pool2d(input, self.output_size)


class GlobalAvgPool2d(Module):
    """`global_avg_pool2d`."""

    def forward(self, input: Node) -> Node:
        return pooling.global_avg_pool2d(input)


class ReLU(Module):
    """`relu`."""

    def forward(self, input: Node) -> Node:
        return elementwise.relu(input)


class ReLU6(Module):
    """`relu6`."""

    def forward(self, input: Node) -> Node:
        return elementwise.relu6(input)


class Sigmoid(Module):
    """`sigmoid`."""

    def forward(self, input: Node) -> Node:
        return elementwise.sigmoid(input)


class Softmax(Module):
    """`softmax` along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, input: Node) -> Node:
        return elementwise.softmax(input, self.dim)


class Dropout(Module):
    """`dropout`: the input, when the network answers."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, input: Node) -> Node:
        return elementwise.dropout(input, self.p)


class Concatenate(Module):
    """`concatenate` of what each of `branches` makes of the input."""

    def __init__(self, *branches: Module, axis: int = -1) -> None:
        if not branches:
            raise ValueError("Concatenate: no branches; expected at least one")
        self.axis = axis
        for number, branch in enumerate(branches):
            setattr(self, str(number), branch)

    def forward(self, input: Node) -> Node:
        return arrange.concatenate([branch(input) for branch in self._parts.values()], self.axis)


class ChannelShuffle(Module):
    """`channel_shuffle` of `groups`."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def forward(self, input: Node) -> Node:
        return arrange.channel_shuffle(input, self.groups)


class Flatten(Module):
    """`flatten`, in torch's order."""

    def forward(self, input: Node) -> Node:
        return arrange.flatten(input)


class Im2col(Module):
    """`im2col`; all arguments as there."""

    def __init__(
        self, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
    ) -> None:
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Node) -> Node:
        return convolution.im2col(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Upsample(Module):
    """`interpolate`; all arguments as there."""

    def __init__(
        self,
        size: Pair | None = None,
        scale_factor: Scale | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        self.size, self.scale_factor = size, scale_factor
        self.mode, self.align_corners = mode, align_corners

    def forward(self, input: Node) -> Node:
        return resize.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners
        )


class Identity(Module):
    """The input."""

    def forward(self, input: Node) -> Node:
        return input


def _set(module: Module, name: str, value: Initial | None) -> None:
    """Set an array that is still to be drawn, under the type that it will have."""
    setattr(module, name, value)
