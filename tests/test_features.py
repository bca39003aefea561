"""Features by name: what a name means, what is computed for it, and the part called `features`."""

import copy
import pickle

import numpy as np
import pytest

import striate as st
from striate import models
from striate.layers import (
    BatchNorm2d,
    Conv2d,
    Identity,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    add,
    flatten,
    global_avg_pool2d,
)
from striate.layers.extract import feature_graph, survey
from striate.network.graph import Computed, Parameter

# The part `features` of torchvision's own names.
WITH_PART = ("alexnet", "vgg11", "squeezenet1_1", "densenet121", "mobilenet_v2")


class Block(Module):
    """Two convolutions and one relu, which is called twice."""

    def __init__(self, features: int) -> None:
        self.conv1 = Conv2d(features, features, 3, padding=1)
        self.bn1 = BatchNorm2d(features)
        self.conv2 = Conv2d(features, features, 3, padding=1, bias=False)
        self.relu = ReLU()

    def forward(self, input):
        output = self.relu(self.bn1(self.conv1(input)))
        return self.relu(add(self.conv2(output), input))


class Small(Module):
    """A stem of stride 2, two blocks, a pool, and a head."""

    def __init__(self) -> None:
        self.stem = Sequential(Conv2d(3, 8, 3, 2, 1), ReLU(), Identity())
        self.blocks = Sequential(Block(8), Block(8))
        self.pool = MaxPool2d(2)
        self.unused = Conv2d(8, 8, 1)
        self.fc = Linear(8, 5)

    def forward(self, input):
        return self.fc(global_avg_pool2d(self.pool(self.blocks(self.stem(input)))))


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((2, 20, 26, 3), np.float32)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_outputs_are_those_of_the_modules(images):
    model = Small()
    block = model.blocks[0]
    # Statistics that show whether a batch norm was applied.
    block.bn1.running_mean = np.full(8, 0.7, np.float32)
    names = ["stem", "blocks.0.conv1", "blocks.0.bn1", "blocks.0.conv2", "blocks.0", "pool"]
    found = model.features(images, names)
    assert list(found) == names
    stem = st.relu(st.conv2d(images, model.stem[0].weight, model.stem[0].bias, 2, 1))
    conv1 = st.conv2d(stem, block.conv1.weight, block.conv1.bias, padding=1)
    bn1 = (conv1 - 0.7) / np.sqrt(1 + 1e-5)
    conv2 = st.conv2d(st.relu(bn1), block.conv2.weight, padding=1)
    close(found["stem"], stem)
    close(found["blocks.0.conv1"], conv1)
    close(found["blocks.0.bn1"], bn1)
    close(found["blocks.0.conv2"], conv2)
    close(found["blocks.0"], st.relu(conv2 + stem))
    close(found["pool"], model.pool(model.blocks(stem)))
    assert np.array_equal(found["stem"], model.features(images, ["stem"])["stem"])


def test_names_of_what_is_called_twice_and_of_what_no_module_gives(images):
    model = Small()
    found = model.features(
        images, ["blocks.0.relu", "blocks.0.relu_1", "blocks.0.add", "blocks.0", "input", "fc", ""]
    )
    assert (found["blocks.0.relu"] != found["blocks.0.relu_1"]).any()
    close(found["blocks.0.relu_1"], st.relu(found["blocks.0.add"]))
    assert found["blocks.0"] is found["blocks.0.relu_1"]
    assert np.array_equal(found["input"], images)
    assert found["fc"].shape == (2, 5)
    close(found[""], model(images))


def test_nothing_is_computed_that_is_not_needed():
    model = Small()
    graph, _ = feature_graph(model, (1, 20, 26, 3), ["blocks.0.conv1", "stem.0"])
    labels = [node.label for node in graph.nodes() if isinstance(node, Computed)]
    assert labels == ["stem.0", "stem.1", "blocks.0.conv1"]
    graph, places = feature_graph(model, (1, 20, 26, 3), ["stem", "stem.1", "stem.2", "stem.0"])
    assert (len(graph.outputs), places) == (2, {"stem": 0, "stem.1": 0, "stem.2": 0, "stem.0": 1})


def test_layouts_threads_and_algorithms_agree(images):
    model = Small()
    names = ["stride2", "blocks.1.conv2", "fc"]
    found = model.features(images, names)
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    for options in ({"threads": 1}, {"threads": 3}):
        again = model.features(images, names, **options)
        assert all(np.array_equal(found[name], again[name]) for name in names)
    direct = model.features(images, names, algorithm="direct")
    other = model.features(first, names, layout="NCHW")
    for name in names:
        close(direct[name], found[name])
        map = other[name]
        close(map.transpose(0, 2, 3, 1) if map.ndim == 4 else map, found[name])


def test_a_program_is_kept_until_the_model_changes(images):
    model = Small()
    before = model.features(images, ["blocks"])["blocks"]
    made = []
    for _ in range(3):
        executable, _ = next(iter(model.__dict__["_executables"]._kept.values()))
        made.append(executable)
        assert np.array_equal(model.features(images, ["blocks"])["blocks"], before)
    assert made[0] is made[2]
    model.stem[0] = Conv2d(3, 8, 3, 2, 1)
    assert (model.features(images, ["blocks"])["blocks"] != before).any()


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        (["block.0"], ValueError, "no feature called 'block.0'; did you mean blocks.0"),
        (["qqqq"], ValueError, "model.paths()"),
        (["unused"], ValueError, "does not use its part 'unused'"),
        (["stride4", "stride16"], ValueError, "'stride16'; it has stride2, stride4"),
        ([], ValueError, "names is empty"),
        ("stem", TypeError, "expected a list of names"),
        ([3], TypeError, "a name is 3"),
    ],
)
def test_bad_names_are_said(images, names, error, says):
    with pytest.raises(error, match=says.replace("(", r"\(").replace(")", r"\)")):
        Small().features(images, names)


def test_errors_of_the_image_are_the_networks(images):
    with pytest.raises(ValueError, match="has 2 features"):
        Small().features(images[..., :2], ["blocks"])
    with pytest.raises(ValueError, match="4"):
        Small().features(images[0], ["stride2"])


def test_what_lies_behind_the_features_may_not_fit():
    model = models.create("alexnet_2012")
    graph, _ = feature_graph(model, (1, 300, 320, 3), ["features.4", "stride16"])
    assert [node.shape for node in graph.outputs] == [(1, 36, 38, 256), (1, 17, 18, 256)]
    with pytest.raises(ValueError, match="last axis must be 9216"):
        feature_graph(model, (1, 300, 320, 3), ["features.4", "classifier.1"])


@pytest.mark.parametrize("name", WITH_PART)
def test_a_part_called_features_is_itself_and_the_method(name):
    model = models.create(name)
    part = model.parts()["features"]
    reached = model.features
    assert isinstance(reached, Sequential)
    assert len(reached) == len(part)
    assert list(reached) == list(part)
    assert reached[0] is part[0]
    assert reached[:2].parts() == part[:2].parts()
    assert reached.state_shapes() == part.state_shapes()
    assert repr(reached) == repr(part)
    assert [n for n in model.state_shapes() if n.startswith("features.")]
    shape = (1, 64, 72, 3)
    drawn = model.trace(shape, abstract=True, forward=lambda x: model.features(x))
    alone = part.trace(shape, abstract=True)
    assert drawn.outputs[0].shape == alone.outputs[0].shape
    # Drawn by way of the attribute, its arrays have the names of the network's state dict.
    named = [node.name for node in drawn.nodes() if isinstance(node, Parameter)]
    assert set(named) <= set(model.state_shapes())
    for twin in (copy.deepcopy(reached), pickle.loads(pickle.dumps(reached))):
        assert type(twin) is type(part)
    other = models.create(name)
    other.features = reached
    assert other.parts()["features"] is part


def test_a_part_called_features_answers_both_ways():
    model = models.create("squeezenet1_1")
    images = np.random.default_rng(1).random((1, 40, 48, 3), np.float32)
    whole = model.features(images)
    found = model.features(images, ["features", "classifier.1", "features.3.squeeze"])
    close(found["features"], whole)
    assert found["classifier.1"].shape == (1, 2, 2, 1000)
    weight = model.features[0].weight
    model.features[0].weight = 2 * weight
    assert (model.features(images) != whole).any()
    dense = models.create("densenet121")
    assert dense.features.denseblock1.denselayer1.conv1.weight.shape[2] == 64


def test_other_attributes_called_features_stay_theirs():
    class Other(Small):
        def __init__(self) -> None:
            super().__init__()
            self.features = 64

    assert Other().features == 64
    assert st.features(Other(), np.zeros((1, 8, 8, 3), np.float32), ["stem"])["stem"].shape[3] == 8
    model = Small()
    model.features = np.arange(3, dtype=np.float32)
    assert model.features.tolist() == [0, 1, 2]


STAGES = {
    "alexnet": "features.1 features.4 features.11 features",
    "vgg11": "features.1 features.4 features.9 features.14 features.19 features",
    "resnet50": "relu layer1 layer2 layer3 layer4",
    "wide_resnet50_2": "relu layer1 layer2 layer3 layer4",
    "resnext50_32x4d": "relu layer1 layer2 layer3 layer4",
    "squeezenet1_0": "features.1 features.5 features.10 features",
    "densenet121": "features.relu0 features.denseblock1 features.denseblock2 features.denseblock3"
    " relu",
    "inception_v3": "Conv2d_2b_3x3 Conv2d_4a_3x3 Mixed_5d Mixed_6e Mixed_7c",
    "googlenet": "conv1 norm2 inception3b inception4e inception5b",
    "shufflenet_v2_x1_0": "conv1 maxpool stage2 stage3 conv5",
    "mobilenet_v2": "features.1 features.3 features.6 features.13 features",
    "mnasnet1_0": "layers.7 layers.8 layers.9 layers.11 layers",
    "efficientnet_lite0": "_blocks.0 _blocks.2 _blocks.4 _blocks.10 relu6_1",
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_of_the_families(name):
    model = models.create(name)
    for size in ((224, 224), (150, 331)):
        assert " ".join(survey(model, (1, *size, 3)).stages.values()) == STAGES[name]
    strides = survey(model, (1, 224, 224, 3)).strides
    for stage, inner in survey(model, (1, 224, 224, 3)).stages.items():
        assert strides[inner] == (int(stage[6:]),) * 2


def test_strides_of_other_maps():
    class Odd(Module):
        def __init__(self) -> None:
            self.wide = Conv2d(3, 4, 3, (2, 3))
            self.up = st.layers.Upsample(scale_factor=3)

        def forward(self, input):
            return flatten(self.up(self.wide(input)))

    found = survey(Odd(), (1, 30, 40, 3))
    assert found.strides["wide"] == (2, 3)
    assert [float(n) for n in found.strides["up"]] == [2 / 3, 1]
    assert found.stages == {}
    assert "" not in found.strides
