"""MobileNet v2 (Sandler et al. 2018): inverted residuals with linear bottlenecks."""

from typing import ClassVar

from striate.layers import (
    AdaptiveAvgPool2d,
    Dropout,
    Linear,
    Module,
    ReLU6,
    Sequential,
    add,
)
from striate.models.blocks import Classifier, classify, conv_norm, conv_norm_act
from striate.network.graph import Node

# Expansion, features, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(Module):
    """1x1 to many features, depthwise 3x3, 1x1 to few; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        inner = inputs * expansion
        parts: list[Module] = []
        if expansion != 1:
            parts.append(conv_norm_act(inputs, inner, 1, activation=ReLU6))
        parts.append(conv_norm_act(inner, inner, 3, stride, inner, ReLU6))
        self.conv = Sequential(*parts, *conv_norm(inner, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, input: Node) -> Node:
        output = self.conv(input)
        return add(output, input) if self.shortcut else output


class MobileNetV2(Classifier):
    """A stem, 17 inverted residuals, one more convolution and a linear layer; input 224 x 224."""

    heads: ClassVar = ("classifier.1",)

    def __init__(self, classes: int = 1000) -> None:
        parts: list[Module] = [conv_norm_act(3, 32, 3, 2, activation=ReLU6)]
        inputs = 32
        for expansion, outputs, repeats, first in STAGES:
            for k in range(repeats):
                stride = 1 if k else first
                parts.append(InvertedResidual(inputs, outputs, stride, expansion))
                inputs = outputs
        parts.append(conv_norm_act(inputs, 1280, 1, activation=ReLU6))
        self.features = Sequential(*parts)
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.classifier = Sequential(Dropout(0.2), Linear(1280, classes))

    def forward(self, input: Node) -> Node:
        return classify(self.avgpool, self.classifier, self.features(input))
