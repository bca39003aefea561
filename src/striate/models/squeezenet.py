"""SqueezeNet (Iandola et al. 2016): Fire modules squeeze the features, then expand them."""

from typing import ClassVar

from striate.layers import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    concatenate,
    flatten,
)
from striate.models.blocks import Classifier
from striate.network.graph import Node

# Features and kernel of the stem, then a Fire module for each row (squeezed and expanded
# features), "pool" for a 3x3 max pool of stride 2 in ceil mode.
Row = tuple[int, int] | str
VERSIONS: dict[str, tuple[tuple[int, int], tuple[Row, ...]]] = {
    "1.0": (
        (96, 7),
        (
            "pool", (16, 64), (16, 64), (32, 128),
            "pool", (32, 128), (48, 192), (48, 192), (64, 256),
            "pool", (64, 256),
        ),
    ),
    "1.1": (
        (64, 3),
        (
            "pool", (16, 64), (16, 64),
            "pool", (32, 128), (32, 128),
            "pool", (48, 192), (48, 192), (64, 256), (64, 256),
        ),
    ),
}  # fmt: skip


class Fire(Module):
    """A 1x1 convolution to few features, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        self.squeeze = Conv2d(inputs, squeezed, 1)
        self.squeeze_activation = ReLU()
        self.expand1x1 = Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = ReLU()
        self.expand3x3 = Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = ReLU()

    def forward(self, input: Node) -> Node:
        squeezed = self.squeeze_activation(self.squeeze(input))
        return concatenate(
            [
                self.expand1x1_activation(self.expand1x1(squeezed)),
                self.expand3x3_activation(self.expand3x3(squeezed)),
            ]
        )


class SqueezeNet(Classifier):
    """`version` "1.0" or "1.1"; input 224 x 224. The last convolution is followed by a relu."""

    heads: ClassVar = ("classifier.1",)

    def __init__(self, version: str, classes: int = 1000) -> None:
        (inputs, kernel), rows = VERSIONS[version]
        parts: list[Module] = [Conv2d(3, inputs, kernel, 2), ReLU()]
        for row in rows:
            if isinstance(row, str):
                parts.append(MaxPool2d(3, 2, ceil_mode=True))
                continue
            parts.append(Fire(inputs, *row))
            inputs = 2 * row[1]
        self.features = Sequential(*parts)
        head = Conv2d(inputs, classes, 1)
        self.classifier = Sequential(Dropout(), head, ReLU(), AdaptiveAvgPool2d((1, 1)))

    def forward(self, input: Node) -> Node:
        return flatten(self.classifier(self.features(input)))
