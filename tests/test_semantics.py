"""What implementations get wrong: folding into padding, windows of an image, norms, sizes."""

import numpy as np
import pytest
from random_graphs import evaluate
from test_layers_windows import arrays

from striate import layers, models
from striate.layers import BatchNorm2d, Conv2d, MaxPool2d, Module, ReLU, Sequential
from striate.models.googlenet import other_scale
from striate.network.graph import Computed
from striate.notation import to_text
from striate.transforms.fold import fold


class Rescaled(Module):
    """A padded convolution of an image on another scale, as GoogLeNet begins."""

    def __init__(self):
        self.conv = Conv2d(3, 8, 7, stride=2, padding=3)

    def forward(self, input):
        return self.conv(other_scale(input))


def test_rescaling_is_not_folded_into_a_padded_convolution():
    module = Rescaled()
    (x,) = arrays((1, 12, 13, 3))
    graph = module.trace(x.shape)
    (expected,) = evaluate(graph, x)
    found = module(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Folded, the border would see the shift where it should see zeros.
    shift = other_scale(np.zeros((1, 1, 1, 3), np.float32))
    beyond = np.pad(other_scale(x) - shift, ((0, 0), (3, 3), (3, 3), (0, 0))) + shift
    wrong = layers.conv2d(beyond, module.conv.weight, module.conv.bias, 2)
    assert np.abs(found - wrong)[:, 0].max() > 1e-2
    np.testing.assert_allclose(found[:, 2:4, 2:4], wrong[:, 2:4, 2:4], atol=1e-5)


def test_densenet_folds_its_second_norms_and_not_its_first():
    graph = models.create("densenet121").trace((1, 64, 64, 3), abstract=True)
    kept = [node for node in fold(graph).nodes() if isinstance(node, Computed)]
    scaled = {node.label for node in kept if "sum[" not in to_text(node.statement.equation)}
    assert not any(label.endswith("norm2") for label in scaled)
    assert sum(label.endswith("norm1") for label in scaled) == 6 + 12 + 24 + 16
    convolved = {node.label for node in kept if "sum[" in to_text(node.statement.equation)}
    biased = {n.label for n in kept if n.label in convolved and len(n.operands) == 3}
    # norm0 and every norm2 have become their convolution's bias.
    assert len([label for label in biased if "denselayer" in label]) == 6 + 12 + 24 + 16


def unpadded():
    return Sequential(Conv2d(3, 8, 3, stride=2), ReLU(), MaxPool2d(3, 2), Conv2d(8, 4, 2))


def test_without_padding_an_image_is_all_its_windows():
    module = unpadded()
    # 11 pixels make one place of the answer; the next place lies 4 pixels on.
    (image,) = arrays((1, 11 + 4 * 3, 11 + 4 * 2, 3))
    whole = module(image)
    assert whole.shape == (1, 4, 3, 4)
    for p in range(4):
        for q in range(3):
            window = image[:, 4 * p : 4 * p + 11, 4 * q : 4 * q + 11]
            np.testing.assert_allclose(module(window)[0, 0, 0], whole[0, p, q], atol=1e-5)


def test_with_padding_a_window_sees_zeros_where_the_image_goes_on():
    module = Sequential(Conv2d(3, 4, 3, padding=1))
    (image,) = arrays((1, 8, 8, 3))
    whole, window = module(image), module(image[:, 2:6, 2:6])
    np.testing.assert_allclose(window[:, 1:-1, 1:-1], whole[:, 3:5, 3:5], atol=1e-5)
    assert np.abs(window - whole[:, 2:6, 2:6])[:, 0].max() > 1e-2


@pytest.mark.parametrize("name", ["inception_v3", "densenet121"])
def test_average_pools_count_their_padding(name):
    entry = models.find(name)
    graph = models.create(name).trace((1, *entry.input, 3), abstract=True)
    texts = [
        to_text(node.statement.equation)
        for node in graph.nodes()
        if isinstance(node, Computed) and node.label.endswith(("avg_pool2d", "pool"))
    ]
    averages = [text for text in texts if "sum[u,v](x[" in text]
    assert averages
    assert not any("R[p]" in text for text in averages)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2"])
def test_batch_norm_of_torch(name):
    norms = [part for _, part in models.create(name).modules() if isinstance(part, BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_batch_norm_of_the_other_families():
    for name in ("inception_v3", "googlenet"):
        parts = models.create(name).modules()
        norms = [part for _, part in parts if isinstance(part, BatchNorm2d)]
        assert {norm.eps for norm in norms} == {1e-3}
    parts = models.create("mnasnet0_5").modules()
    norms = [part for _, part in parts if isinstance(part, BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {3e-4}


def test_no_local_norm_and_no_groups_in_torchs_alexnet():
    ours = [part for _, part in models.create("alexnet").modules()]
    assert not any(isinstance(part, layers.LocalResponseNorm) for part in ours)
    assert {part.groups for part in ours if isinstance(part, Conv2d)} == {1}
    lecture = [part for _, part in models.create("alexnet_2012").modules()]
    assert sum(isinstance(part, layers.LocalResponseNorm) for part in lecture) == 2
    convolutions = [part for part in lecture if isinstance(part, Conv2d)]
    assert [part.weight.shape[3] for part in convolutions] == [96, 256, 384, 384, 256]
    assert [(part.stride, part.padding) for part in convolutions] == [
        (4, 0), (1, 2), (1, 1), (1, 1), (1, 1),
    ]  # fmt: skip
    pools = [part for part in lecture if isinstance(part, MaxPool2d)]
    assert [(part.kernel_size, part.stride) for part in pools] == [(3, 2)] * 3


def test_squeezenet_and_googlenet_round_up():
    for name, before, after in (("squeezenet1_0", 54, 27), ("googlenet", 112, 56)):
        graph = models.create(name).trace((1, 224, 224, 3), abstract=True)
        halved = [
            (dict(node.statement.shapes)["x"][1], node.shape[1])
            for node in graph.nodes()
            if isinstance(node, Computed) and "max[" in to_text(node.statement.equation)
        ]
        assert (before, after) in halved


def test_the_default_network_is_the_packaged_one():
    assert models.registry.DEFAULT == "efficientnet_lite0"
