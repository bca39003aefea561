"""Inception v3 (Szegedy et al. 2015), as torchvision has it."""

from typing import ClassVar, NamedTuple

from striate.layers import (
    AdaptiveAvgPool2d,
    Dropout,
    Linear,
    MaxPool2d,
    Module,
    avg_pool2d,
    concatenate,
    flatten,
    global_avg_pool2d,
    max_pool2d,
)
from striate.models.blocks import BasicConv2d, Classifier
from striate.models.googlenet import other_scale
from striate.network.graph import Node


# A branch is convolutions one after another. Stride 1 keeps the size, stride 2 does not pad;
# "avg" and "max" are 3x3 pools, and the convolutions of a tuple at the end lie side by side.
class Conv(NamedTuple):
    """One convolution with its batch norm and relu."""

    name: str
    features: int
    kernel: tuple[int, int]
    stride: int


Step = Conv | tuple[Conv, ...] | str
Branch = tuple[Step, ...]


def _conv(name: str, features: int, rows: int = 1, columns: int = 0, stride: int = 1) -> Conv:
    return Conv(name, features, (rows, columns or rows), stride)


def _a(pooled: int) -> tuple[Branch, ...]:
    return (
        (_conv("branch1x1", 64),),
        (_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, 5)),
        (
            _conv("branch3x3dbl_1", 64),
            _conv("branch3x3dbl_2", 96, 3),
            _conv("branch3x3dbl_3", 96, 3),
        ),
        ("avg", _conv("branch_pool", pooled)),
    )


_B: tuple[Branch, ...] = (
    (_conv("branch3x3", 384, 3, stride=2),),
    (
        _conv("branch3x3dbl_1", 64),
        _conv("branch3x3dbl_2", 96, 3),
        _conv("branch3x3dbl_3", 96, 3, stride=2),
    ),
    ("max",),
)


def _c(inner: int) -> tuple[Branch, ...]:
    return (
        (_conv("branch1x1", 192),),
        (
            _conv("branch7x7_1", inner),
            _conv("branch7x7_2", inner, 1, 7),
            _conv("branch7x7_3", 192, 7, 1),
        ),
        (
            _conv("branch7x7dbl_1", inner),
            _conv("branch7x7dbl_2", inner, 7, 1),
            _conv("branch7x7dbl_3", inner, 1, 7),
            _conv("branch7x7dbl_4", inner, 7, 1),
            _conv("branch7x7dbl_5", 192, 1, 7),
        ),
        ("avg", _conv("branch_pool", 192)),
    )


_D: tuple[Branch, ...] = (
    (_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, stride=2)),
    (
        _conv("branch7x7x3_1", 192),
        _conv("branch7x7x3_2", 192, 1, 7),
        _conv("branch7x7x3_3", 192, 7, 1),
        _conv("branch7x7x3_4", 192, 3, stride=2),
    ),
    ("max",),
)

_E: tuple[Branch, ...] = (
    (_conv("branch1x1", 320),),
    (
        _conv("branch3x3_1", 384),
        (_conv("branch3x3_2a", 384, 1, 3), _conv("branch3x3_2b", 384, 3, 1)),
    ),
    (
        _conv("branch3x3dbl_1", 448),
        _conv("branch3x3dbl_2", 384, 3),
        (_conv("branch3x3dbl_3a", 384, 1, 3), _conv("branch3x3dbl_3b", 384, 3, 1)),
    ),
    ("avg", _conv("branch_pool", 192)),
)

# Name, input features, branches.
MIXED: tuple[tuple[str, int, tuple[Branch, ...]], ...] = (
    ("Mixed_5b", 192, _a(32)),
    ("Mixed_5c", 256, _a(64)),
    ("Mixed_5d", 288, _a(64)),
    ("Mixed_6a", 288, _B),
    ("Mixed_6b", 768, _c(128)),
    ("Mixed_6c", 768, _c(160)),
    ("Mixed_6d", 768, _c(160)),
    ("Mixed_6e", 768, _c(192)),
    ("Mixed_7a", 768, _D),
    ("Mixed_7b", 1280, _E),
    ("Mixed_7c", 2048, _E),
)


class Mixed(Module):
    """Branches side by side, their features one after another."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...]) -> None:
        self._branches = branches
        for branch in branches:
            features = inputs
            for step in branch:
                for name, outputs, (rows, columns), stride in _convs(step):
                    padding = (rows // 2, columns // 2) if stride == 1 else 0
                    part = BasicConv2d(features, outputs, (rows, columns), stride, padding)
                    setattr(self, name, part)
                features = next((conv.features for conv in _convs(step)), features)

    def forward(self, input: Node) -> Node:
        return concatenate([self._branch(branch, input) for branch in self._branches])

    def _branch(self, branch: Branch, features: Node) -> Node:
        parts = self.parts()
        for step in branch:
            if step == "avg":
                features = avg_pool2d(features, 3, 1, 1)
            elif step == "max":
                features = max_pool2d(features, 3, 2)
            else:
                features = concatenate([parts[conv.name](features) for conv in _convs(step)])
        return features


def _convs(step: Step) -> tuple[Conv, ...]:
    """The convolutions of a step, none in a pool."""
    if isinstance(step, str):
        return ()
    return (step,) if isinstance(step, Conv) else step


class InceptionAux(Module):
    """The auxiliary head on 17x17 features: used in training alone."""

    def __init__(self, inputs: int, classes: int) -> None:
        self.conv0 = BasicConv2d(inputs, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = Linear(768, classes)

    def forward(self, input: Node) -> Node:
        features = self.conv1(self.conv0(avg_pool2d(input, 5, 3)))
        return self.fc(global_avg_pool2d(features))


class Inception3(Classifier):
    """A stem, eleven blocks of branches, one fully connected layer; input 299 x 299."""

    heads: ClassVar = ("fc", "AuxLogits.fc")
    optional: ClassVar = ("AuxLogits",)

    def __init__(self, classes: int = 1000, transform_input: bool = False) -> None:
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool1 = MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = MaxPool2d(3, 2)
        for name, inputs, branches in MIXED:
            if name == "Mixed_7a":
                self.AuxLogits = InceptionAux(inputs, classes)
            setattr(self, name, Mixed(inputs, branches))
        self.avgpool = AdaptiveAvgPool2d((1, 1))
        self.dropout = Dropout()
        self.fc = Linear(2048, classes)

    def forward(self, input: Node) -> Node:
        return self.forward_with_heads(input, heads=False)[0]

    def forward_with_heads(self, input: Node, heads: bool = True) -> tuple[Node, ...]:
        """The scores, and those of the auxiliary head as long as there is one."""
        parts = self.parts()
        features = other_scale(input) if self.transform_input else input
        auxiliary = []
        for name, part in parts.items():
            if name == "AuxLogits":
                auxiliary = [part(features)] if heads else []
            elif name == "fc":
                features = part(flatten(features))
            else:
                features = part(features)
        return features, *auxiliary
