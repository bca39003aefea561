"""ShuffleNet v2 (Ma et al. 2018): half of the features pass by, then the halves are mixed."""

from striate.layers import (
    BatchNorm2d,
    Conv2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    channel_shuffle,
    concatenate,
    global_avg_pool2d,
    take_features,
)
from striate.models.blocks import Classifier, conv_norm, conv_norm_act
from striate.network.graph import Node

# Features of the three stages and of the last convolution, by width.
WIDTHS = {
    "x0_5": (48, 96, 192, 1024),
    "x1_0": (116, 232, 464, 1024),
    "x1_5": (176, 352, 704, 1024),
    "x2_0": (244, 488, 976, 2048),
}
REPEATS = (4, 8, 4)


class InvertedResidual(Module):
    """Two branches, their features shuffled; of stride 1 the first is the identity on one half."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        half = outputs // 2
        self.stride = stride
        self.branch1 = Sequential()
        if stride > 1:
            self.branch1 = Sequential(
                *conv_norm(inputs, inputs, 3, stride, inputs), *conv_norm(inputs, half, 1), ReLU()
            )
        self.branch2 = Sequential(
            *conv_norm(inputs if stride > 1 else half, half, 1),
            ReLU(),
            *conv_norm(half, half, 3, stride, half),
            *conv_norm(half, half, 1),
            ReLU(),
        )

    def forward(self, input: Node) -> Node:
        if self.stride > 1:
            first, second = self.branch1(input), self.branch2(input)
        else:
            features = input.shape[-1]
            first = take_features(input, 0, features // 2)
            second = self.branch2(take_features(input, features // 2, features))
        return channel_shuffle(concatenate([first, second]), 2)


class ShuffleNetV2(Classifier):
    """A stem, three stages, one more convolution, one fully connected layer; input 224 x 224."""

    def __init__(self, width: str, classes: int = 1000) -> None:
        *stages, last = WIDTHS[width]
        self.conv1 = Sequential(Conv2d(3, 24, 3, 2, 1, bias=False), BatchNorm2d(24), ReLU())
        self.maxpool = MaxPool2d(3, 2, 1)
        inputs = 24
        for number, (outputs, repeats) in enumerate(zip(stages, REPEATS, strict=True), 2):
            blocks = [InvertedResidual(inputs, outputs, 2)]
            blocks += [InvertedResidual(outputs, outputs, 1) for _ in range(repeats - 1)]
            setattr(self, f"stage{number}", Sequential(*blocks))
            inputs = outputs
        self.conv5 = conv_norm_act(inputs, last, 1)
        self.fc = Linear(last, classes)

    def forward(self, input: Node) -> Node:
        features = input
        for name, part in self.parts().items():
            features = part(global_avg_pool2d(features) if name == "fc" else features)
        return features
