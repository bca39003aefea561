"""DenseNet (Huang et al. 2016): every layer reads all features before it in its block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from striate.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    concatenate,
    relu,
)
from striate.layers.arguments import AnyArray
from striate.models.blocks import Classifier, classify
from striate.network.graph import Node


@dataclass(frozen=True, slots=True)
class Variant:
    """Features that each layer adds, layers in each block, features of the stem."""

    growth: int
    layers: tuple[int, int, int, int]
    stem: int


VARIANTS = {
    "densenet121": Variant(32, (6, 12, 24, 16), 64),
    "densenet161": Variant(48, (6, 12, 36, 24), 96),
    "densenet169": Variant(32, (6, 12, 32, 32), 64),
    "densenet201": Variant(32, (6, 12, 48, 32), 64),
}


class DenseLayer(Module):
    """Batch norm before each of a 1x1 and a 3x3 convolution; adds `growth` features."""

    def __init__(self, inputs: int, growth: int) -> None:
        self.norm1 = BatchNorm2d(inputs)
        self.relu1 = ReLU()
        self.conv1 = Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = BatchNorm2d(4 * growth)
        self.relu2 = ReLU()
        self.conv2 = Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, input: Node) -> Node:
        inner = self.conv1(self.relu1(self.norm1(input)))
        return self.conv2(self.relu2(self.norm2(inner)))


class DenseBlock(Sequential):
    """Layers that each read the features of all before."""

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__(
            **{f"denselayer{k + 1}": DenseLayer(inputs + k * growth, growth) for k in range(layers)}
        )

    def forward(self, input: Node) -> Node:
        features = [input]
        for layer in self:
            features.append(layer(concatenate(features)))
        return concatenate(features)


class DenseNet(Classifier):
    """Four dense blocks with transitions between them; input 224 x 224."""

    heads: ClassVar = ("classifier",)

    def __init__(self, variant: Variant, classes: int = 1000) -> None:
        parts: dict[str, Module] = {
            "conv0": Conv2d(3, variant.stem, 7, 2, 3, bias=False),
            "norm0": BatchNorm2d(variant.stem),
            "relu0": ReLU(),
            "pool0": MaxPool2d(3, 2, 1),
        }
        features = variant.stem
        for number, layers in enumerate(variant.layers, 1):
            parts[f"denseblock{number}"] = DenseBlock(features, layers, variant.growth)
            features += layers * variant.growth
            if number < len(variant.layers):
                parts[f"transition{number}"] = Sequential(
                    norm=BatchNorm2d(features),
                    relu=ReLU(),
                    conv=Conv2d(features, features // 2, 1, bias=False),
                    pool=AvgPool2d(2, 2),
                )
                features //= 2
        parts["norm5"] = BatchNorm2d(features)
        self.features = Sequential(**parts)
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.classifier = Linear(features, classes)

    def forward(self, input: Node) -> Node:
        return classify(self.avgpool, self.classifier, relu(self.features(input)))

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """As for every module; also takes files of 2017, where `norm1` is called `norm.1`."""
        from striate.weights.state import rename

        super().load_state_dict(rename(state))
