"""AlexNet: as torchvision has it (Krizhevsky 2014), and as it won in 2012 (Krizhevsky et al.)."""

from typing import ClassVar

from striate.layers import (
    AdaptiveAvgPool2d,
    Conv2d,
    Identity,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from striate.models.blocks import Classifier, classify, two_hidden_layers
from striate.network.graph import Node

# Features, kernel, stride, padding, and what follows the relu.
Row = tuple[int, int, int, int, str]

TORCHVISION: tuple[Row, ...] = (
    (64, 11, 4, 2, "pool"),
    (192, 5, 1, 2, "pool"),
    (384, 3, 1, 1, ""),
    (256, 3, 1, 1, ""),
    (256, 3, 1, 1, "pool"),
)
LECTURE: tuple[Row, ...] = (
    (96, 11, 4, 0, "norm pool"),
    (256, 5, 1, 2, "norm pool"),
    (384, 3, 1, 1, ""),
    (384, 3, 1, 1, ""),
    (256, 3, 1, 1, "pool"),
)


class AlexNet(Classifier):
    """Five convolutions, three fully connected layers.

    With `rows` other than torchvision's, `fixed` says that the input's size is the table's own
    (227 x 227), so that nothing need be averaged before the fully connected layers.
    """

    heads: ClassVar = ("classifier.6",)

    def __init__(
        self, rows: tuple[Row, ...] = TORCHVISION, classes: int = 1000, fixed: bool = False
    ) -> None:
        parts: list[Module] = []
        inputs = 3
        for features, kernel, stride, padding, after in rows:
            parts += [Conv2d(inputs, features, kernel, stride, padding), ReLU()]
            if "norm" in after:
                # The paper's alpha stands before the plain sum of squares, ours before their mean.
                parts.append(LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0))
            if "pool" in after:
                parts.append(MaxPool2d(3, 2))
            inputs = features
        self.features = Sequential(*parts)
        self.avgpool = Identity() if fixed else AdaptiveAvgPool2d((6, 6))
        self.classifier = two_hidden_layers(inputs * 36, classes, dropout_first=not fixed)

    def forward(self, input: Node) -> Node:
        return classify(self.avgpool, self.classifier, self.features(input))


def alexnet(classes: int = 1000) -> AlexNet:
    """AlexNet as torchvision has it."""
    return AlexNet(TORCHVISION, classes)


def alexnet_2012(classes: int = 1000) -> AlexNet:
    """AlexNet of 2012 on one device, without groups: input 227 x 227."""
    return AlexNet(LECTURE, classes, fixed=True)
