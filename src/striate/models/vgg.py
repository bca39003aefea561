"""VGG (Simonyan and Zisserman 2014): five stages of 3x3 convolutions, batch norm if wanted."""

from typing import ClassVar

from striate.layers import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from striate.models.blocks import Classifier, classify, two_hidden_layers
from striate.network.graph import Node

FEATURES = (64, 128, 256, 512, 512)

# Convolutions in each stage.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(Classifier):
    """`depth` layers of 11, 13, 16 or 19; input 224 x 224."""

    heads: ClassVar = ("classifier.6",)

    def __init__(self, depth: int, norm: bool = False, classes: int = 1000) -> None:
        parts: list[Module] = []
        inputs = 3
        for features, repeats in zip(FEATURES, STAGES[depth], strict=True):
            for _ in range(repeats):
                parts.append(Conv2d(inputs, features, 3, padding=1))
                if norm:
                    parts.append(BatchNorm2d(features))
                parts.append(ReLU())
                inputs = features
            parts.append(MaxPool2d(2, 2))
        self.features = Sequential(*parts)
        self.avgpool = AdaptiveAvgPool2d((7, 7))
        self.classifier = two_hidden_layers(512 * 49, classes, dropout_first=False)

    def forward(self, input: Node) -> Node:
        return classify(self.avgpool, self.classifier, self.features(input))
