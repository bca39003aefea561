"""ResNet (He et al. 2015), ResNeXt (Xie et al. 2016), Wide ResNet (Zagoruyko, Komodakis 2016)."""

from dataclasses import dataclass

from striate.layers import AdaptiveAvgPool2d, Linear, MaxPool2d, Module, ReLU, Sequential, add
from striate.models.blocks import Classifier, classify, conv_norm
from striate.network.graph import Node


class BasicBlock(Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, width: int) -> None:
        self.conv1, self.bn1 = conv_norm(inputs, planes, 3, stride)
        self.relu = ReLU()
        self.conv2, self.bn2 = conv_norm(planes, planes, 3)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, input: Node) -> Node:
        shortcut = self.downsample(input) if self.downsample else input
        output = self.relu(self.bn1(self.conv1(input)))
        output = self.bn2(self.conv2(output))
        return self.relu(add(output, shortcut))


class Bottleneck(Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the stride is on the 3x3 (V1.5)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, groups: int, width: int) -> None:
        inner = planes * width // 64 * groups
        self.conv1, self.bn1 = conv_norm(inputs, inner, 1)
        self.conv2, self.bn2 = conv_norm(inner, inner, 3, stride, groups)
        self.conv3, self.bn3 = conv_norm(inner, planes * 4, 1)
        self.relu = ReLU()
        self.downsample = _shortcut(inputs, planes * 4, stride)

    def forward(self, input: Node) -> Node:
        shortcut = self.downsample(input) if self.downsample else input
        output = self.relu(self.bn1(self.conv1(input)))
        output = self.relu(self.bn2(self.conv2(output)))
        output = self.bn3(self.conv3(output))
        return self.relu(add(output, shortcut))


@dataclass(frozen=True, slots=True)
class Variant:
    """Which blocks, how many in each stage, and how wide they are inside."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    groups: int = 1
    width: int = 64


VARIANTS = {
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Variant(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Variant(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Variant(Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": Variant(Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": Variant(Bottleneck, (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": Variant(Bottleneck, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": Variant(Bottleneck, (3, 4, 23, 3), 1, 128),
}


class ResNet(Classifier):
    """A stem, four stages of blocks, and one fully connected layer; input 224 x 224."""

    def __init__(self, variant: Variant, classes: int = 1000) -> None:
        self.conv1, self.bn1 = conv_norm(3, 64, 7, 2)
        self.relu = ReLU()
        self.maxpool = MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, repeats in enumerate(variant.blocks):
            planes = 64 << stage
            blocks: list[Module] = []
            for k in range(repeats):
                stride = 2 if stage and not k else 1
                blocks.append(variant.block(inputs, planes, stride, variant.groups, variant.width))
                inputs = planes * variant.block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(*blocks))
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.fc = Linear(inputs, classes)

    def forward(self, input: Node) -> Node:
        features = self.maxpool(self.relu(self.bn1(self.conv1(input))))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            features = self.parts()[name](features)
        return classify(self.avgpool, self.fc, features)


def _shortcut(inputs: int, outputs: int, stride: int) -> Sequential | None:
    """A 1x1 convolution where the block's output has another shape than its input."""
    if stride == 1 and inputs == outputs:
        return None
    return Sequential(*conv_norm(inputs, outputs, 1, stride))
