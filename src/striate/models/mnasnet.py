"""MNASNet (Tan et al. 2018): a network found by search, in four widths."""

from collections.abc import Mapping
from typing import ClassVar

from striate.layers import Dropout, Linear, Module, ReLU, Sequential, add, global_avg_pool2d
from striate.layers.arguments import AnyArray
from striate.models.blocks import Classifier, conv_norm
from striate.network.graph import Node

# Features, kernel, stride of the first block, expansion, blocks.
STAGES = (
    (24, 3, 2, 3, 3),
    (40, 5, 2, 3, 3),
    (80, 5, 2, 6, 3),
    (96, 3, 1, 6, 2),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)
MOMENTUM = 3e-4


def scaled(features: int, width: float) -> int:
    """`features` times `width`, to a multiple of 8: the nearest that loses no more than 10%."""
    wanted = features * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class InvertedResidual(Module):
    """1x1 to many features, depthwise, 1x1 to few; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        inner = inputs * expansion
        self.layers = Sequential(
            *conv_norm(inputs, inner, 1, momentum=MOMENTUM),
            ReLU(),
            *conv_norm(inner, inner, kernel, stride, inner, MOMENTUM),
            ReLU(),
            *conv_norm(inner, outputs, 1, momentum=MOMENTUM),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, input: Node) -> Node:
        output = self.layers(input)
        return add(output, input) if self.shortcut else output


class MNASNet(Classifier):
    """`width` multiplies the features; input 224 x 224.

    Version 2 scales the stem (32 and 16 features) along, version 1 does not.
    """

    heads: ClassVar = ("classifier.1",)

    def __init__(self, width: float, classes: int = 1000, version: int = 2) -> None:
        if version not in (1, 2):
            raise ValueError(f"MNASNet: version is {version}; expected 1 or 2")
        self.width, self.version = width, version
        stem, inputs = (scaled(n, width) if version == 2 else n for n in (32, 16))
        parts: list[Module] = [
            *conv_norm(3, stem, 3, 2, momentum=MOMENTUM),
            ReLU(),
            *conv_norm(stem, stem, 3, groups=stem, momentum=MOMENTUM),
            ReLU(),
            *conv_norm(stem, inputs, 1, momentum=MOMENTUM),
        ]
        for features, kernel, first, expansion, repeats in STAGES:
            outputs = scaled(features, width)
            blocks: list[Module] = []
            for k in range(repeats):
                stride = 1 if k else first
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expansion))
                inputs = outputs
            parts.append(Sequential(*blocks))
        parts += [*conv_norm(inputs, 1280, 1, momentum=MOMENTUM), ReLU()]
        self.layers = Sequential(*parts)
        self.classifier = Sequential(Dropout(0.2), Linear(1280, classes))

    def forward(self, input: Node) -> Node:
        return self.classifier(global_avg_pool2d(self.layers(input)))

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """As for every module; the file of another version changes the network's version."""
        stem, own = state.get("layers.0.weight"), self.state_shapes()
        if stem is not None and tuple(stem.shape) != own["layers.0.weight"]:
            other = MNASNet(self.width, own["classifier.1.weight"][0], 3 - self.version)
            if tuple(stem.shape) == other.state_shapes()["layers.0.weight"]:
                Module.load_state_dict(other, state)
                self.version, self.layers, self.classifier = (
                    other.version,
                    other.layers,
                    other.classifier,
                )
                return
        super().load_state_dict(state)
