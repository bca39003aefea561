"""What several families share."""

from typing import ClassVar

from striate.layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    Module,
    ReLU,
    Sequential,
    flatten,
    relu,
)
from striate.layers.arguments import Pair
from striate.network.graph import Node
from striate.weights.presets import STANDARD


class Classifier(Module):
    """A network from images `[b,x,y,i]` to the scores (logits) of classes `[b,j]`."""

    # The parts whose shape depends on the number of classes.
    heads: ClassVar[tuple[str, ...]] = ("fc",)
    # What the registry calls it, if it was made by `create`.
    name = ""
    # On where the weights were trained on images scaled in another way than the preset's.
    transform_input = False
    # How photos were prepared for the training of its weights; `create` knows.
    preset = STANDARD


class BasicConv2d(Module):
    """Convolution, batch norm and relu, as the Inception networks name them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
    ) -> None:
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, input: Node) -> Node:
        return relu(self.bn(self.conv(input)))


class BiasedConv2d(Module):
    """Convolution with a bias, and relu: what networks had before batch norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
    ) -> None:
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, input: Node) -> Node:
        return relu(self.conv(input))


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    momentum: float = 0.1,
) -> tuple[Conv2d, BatchNorm2d]:
    """A convolution without bias that keeps the size (but for its stride), and its batch norm."""
    padding = kernel_size // 2
    return (
        Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
        BatchNorm2d(out_channels, momentum=momentum),
    )


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[Module] = ReLU,
) -> Sequential:
    """A convolution without bias, its batch norm and an activation."""
    norm = conv_norm(in_channels, out_channels, kernel_size, stride, groups)
    return Sequential(*norm, activation())


def classify(pool: Module, head: Module, features: Node) -> Node:
    """Features to scores: pool, flatten, head."""
    return head(flatten(pool(features)))


def two_hidden_layers(inputs: int, classes: int, *, dropout_first: bool) -> Sequential:
    """The fully connected end of AlexNet (dropout first) and VGG (dropout after each relu)."""
    hidden: list[Module] = [
        Linear(inputs, 4096),
        ReLU(),
        Dropout(),
        Linear(4096, 4096),
        ReLU(),
        Dropout(),
    ]
    if dropout_first:
        hidden = [hidden[5], *hidden[:5]]
    return Sequential(*hidden, Linear(4096, classes))
