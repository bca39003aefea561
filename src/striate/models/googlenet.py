"""GoogLeNet (Szegedy et al. 2014): as torchvision has it, and as the paper has it.

Torchvision's has batch norm, and 3x3 convolutions where the paper has 5x5.
"""

from typing import ClassVar

import numpy as np

from striate.layers import (
    AdaptiveAvgPool2d,
    Dropout,
    Identity,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Sequential,
    adaptive_avg_pool2d,
    avg_pool2d,
    concatenate,
    flatten,
    relu,
    scale_and_shift,
)
from striate.models.blocks import BasicConv2d, BiasedConv2d, Classifier
from striate.network.graph import Node

ConvBlock = type[BasicConv2d] | type[BiasedConv2d]

# Name; input features; features of the 1x1 branch; of the 3x3 branch, reduced and full; of the
# 5x5 branch, reduced and full; of the pooled branch.
INCEPTIONS: tuple[tuple[str, int, int, int, int, int, int, int], ...] = (
    ("inception3a", 192, 64, 96, 128, 16, 32, 32),
    ("inception3b", 256, 128, 128, 192, 32, 96, 64),
    ("inception4a", 480, 192, 96, 208, 16, 48, 64),
    ("inception4b", 512, 160, 112, 224, 24, 64, 64),
    ("inception4c", 512, 128, 128, 256, 24, 64, 64),
    ("inception4d", 512, 112, 144, 288, 32, 64, 64),
    ("inception4e", 528, 256, 160, 320, 32, 128, 128),
    ("inception5a", 832, 256, 160, 320, 32, 128, 128),
    ("inception5b", 832, 384, 192, 384, 48, 128, 128),
)

# The pretrained Inception networks were trained on images scaled to [-1, 1]; the preset gives
# them the ImageNet mean and deviation instead, which this undoes.
_MEAN = np.array([0.485, 0.456, 0.406])
_DEVIATION = np.array([0.229, 0.224, 0.225])
_SCALE = (_DEVIATION / 0.5).astype(np.float32)
_SHIFT = ((_MEAN - 0.5) / 0.5).astype(np.float32)


def other_scale(input: Node) -> Node:
    """The image as the pretrained Inception networks want it, from the preset's scale."""
    return scale_and_shift(input, _SCALE, _SHIFT)


class Inception(Module):
    """1x1, 3x3 and 5x5 convolutions and a max pool side by side."""

    def __init__(self, conv: ConvBlock, kernel: int, inputs: int, *features: int) -> None:
        one, reduced3, three, reduced5, five, pooled = features
        self.branch1 = conv(inputs, one, 1)
        self.branch2 = Sequential(conv(inputs, reduced3, 1), conv(reduced3, three, 3, padding=1))
        self.branch3 = Sequential(
            conv(inputs, reduced5, 1), conv(reduced5, five, kernel, padding=kernel // 2)
        )
        self.branch4 = Sequential(MaxPool2d(3, 1, 1, ceil_mode=True), conv(inputs, pooled, 1))

    def forward(self, input: Node) -> Node:
        return concatenate([branch(input) for branch in self.parts().values()])


class InceptionAux(Module):
    """An auxiliary head on 14x14 features: used in training alone."""

    def __init__(self, conv: ConvBlock, inputs: int, classes: int, adaptive: bool) -> None:
        self.adaptive = adaptive
        self.conv = conv(inputs, 128, 1)
        self.fc1 = Linear(2048, 1024)
        self.fc2 = Linear(1024, classes)

    def forward(self, input: Node) -> Node:
        pooled = adaptive_avg_pool2d(input, 4) if self.adaptive else avg_pool2d(input, 5, 3)
        return self.fc2(relu(self.fc1(flatten(self.conv(pooled)))))


class GoogLeNet(Classifier):
    """Nine blocks of branches with two auxiliary heads; input 224 x 224.

    With `paper` as in the paper: 5x5 branches, biases instead of batch norm, local response
    normalisation in the stem, and 3x3 windows in every max pool.
    """

    heads: ClassVar = ("fc", "aux1.fc2", "aux2.fc2")
    optional: ClassVar = ("aux1", "aux2")

    def __init__(
        self, classes: int = 1000, transform_input: bool = False, paper: bool = False
    ) -> None:
        conv: ConvBlock = BiasedConv2d if paper else BasicConv2d
        norm = LocalResponseNorm(5, alpha=1e-4, beta=0.75) if paper else None
        self.transform_input = transform_input
        self.conv1 = conv(3, 64, 7, 2, 3)
        self.maxpool1 = MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = norm or Identity()
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.norm2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75) if paper else Identity()
        self.maxpool2 = MaxPool2d(3, 2, ceil_mode=True)
        for name, inputs, *features in INCEPTIONS:
            if name == "inception4a":
                self.maxpool3 = MaxPool2d(3, 2, ceil_mode=True)
            if name == "inception5a":
                self.maxpool4 = MaxPool2d(3 if paper else 2, 2, ceil_mode=True)
            setattr(self, name, Inception(conv, 5 if paper else 3, inputs, *features))
        self.aux1 = InceptionAux(conv, 512, classes, adaptive=not paper)
        self.aux2 = InceptionAux(conv, 528, classes, adaptive=not paper)
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.dropout = Dropout(0.4 if paper else 0.2)
        self.fc = Linear(1024, classes)

    def forward(self, input: Node) -> Node:
        return self.forward_with_heads(input, heads=False)[0]

    def forward_with_heads(self, input: Node, heads: bool = True) -> tuple[Node, ...]:
        """The scores, and those of the auxiliary heads 1 and 2 as long as there are any."""
        parts = self.parts()
        features = other_scale(input) if self.transform_input else input
        auxiliary = []
        for name, part in parts.items():
            if name in ("aux1", "aux2"):
                continue
            features = part(flatten(features) if name == "fc" else features)
            head = {"inception4a": "aux1", "inception4d": "aux2"}.get(name, "")
            if heads and head in parts:
                auxiliary.append(parts[head](features))
        return features, *auxiliary


def googlenet_2014(classes: int = 1000) -> GoogLeNet:
    """GoogLeNet as the paper has it."""
    return GoogLeNet(classes, paper=True)
