"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), as TensorFlow pads it."""

from typing import ClassVar

from striate.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    Module,
    Sequential,
    add,
    relu6,
)
from striate.models.blocks import Classifier, classify
from striate.network.graph import Node

# Features, kernel, stride of the first block, expansion, blocks.
STAGES = (
    (16, 3, 1, 1, 1),
    (24, 3, 2, 6, 2),
    (40, 5, 2, 6, 2),
    (80, 3, 2, 6, 3),
    (112, 5, 1, 6, 3),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)


class MBConvBlock(Module):
    """1x1 to many features, depthwise, 1x1 to few; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        inner = inputs * expansion
        if expansion != 1:
            self._expand_conv = _conv(inputs, inner, 1)
            self._bn0 = _norm(inner)
        self.expands = expansion != 1
        self._depthwise_conv = _conv(inner, inner, kernel, stride, inner)
        self._bn1 = _norm(inner)
        self._project_conv = _conv(inner, outputs, 1)
        self._bn2 = _norm(outputs)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, input: Node) -> Node:
        output = input
        if self.expands:
            output = relu6(self._bn0(self._expand_conv(output)))
        output = relu6(self._bn1(self._depthwise_conv(output)))
        output = self._bn2(self._project_conv(output))
        return add(output, input) if self.shortcut else output


class EfficientNetLite(Classifier):
    """A stem, 16 blocks, one more convolution and a linear layer; input 224 x 224."""

    heads: ClassVar = ("_fc",)

    def __init__(self, classes: int = 1000) -> None:
        self._conv_stem = _conv(3, 32, 3, 2)
        self._bn0 = _norm(32)
        blocks: list[Module] = []
        inputs = 32
        for outputs, kernel, first, expansion, repeats in STAGES:
            for k in range(repeats):
                stride = 1 if k else first
                blocks.append(MBConvBlock(inputs, outputs, kernel, stride, expansion))
                inputs = outputs
        self._blocks = Sequential(*blocks)
        self._conv_head = _conv(inputs, 1280, 1)
        self._bn1 = _norm(1280)
        self._avg_pooling = AdaptiveAvgPool2d((1, 1))
        self._dropout = Dropout(0.2)
        self._fc = Linear(1280, classes)

    def forward(self, input: Node) -> Node:
        features = self._blocks(relu6(self._bn0(self._conv_stem(input))))
        features = relu6(self._bn1(self._conv_head(features)))
        return classify(self._avg_pooling, self._fc, features)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(inputs, outputs, kernel, stride, "same", groups=groups, bias=False)


def _norm(features: int) -> BatchNorm2d:
    return BatchNorm2d(features, eps=1e-3, momentum=0.01)
