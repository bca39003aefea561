"""All networks: their state dicts, sizes and answers against torchvision's."""

import time

import numpy as np
import pytest
from golden_numbers import cases, difference, logits, manifest, state_dict
from reference import evaluate

from striate import models
from striate.layers import StateDictError
from striate.models.densenet import DenseNet
from striate.models.mnasnet import MNASNet
from striate.network.graph import Computed, Concatenated
from striate.notation import multiply_adds
from striate.weights import write_safetensors

OURS = {"alexnet_2012", "googlenet_2014", "efficientnet_lite0"}
# Networks whose compiled answers are tested here; of the others it is their graphs.
COMPILED = ("squeezenet1_0", "shufflenet_v2_x1_0", "mobilenet_v2")
SLOW = ("alexnet", "vgg11", "vgg16", "vgg16_bn", "wide_resnet50_2", "resnext50_32x4d")
GRAPHS = sorted({name.split("/")[0] for name in logits()} - {*COMPILED, *SLOW})


def total_multiply_adds(graph):
    return sum(multiply_adds(n.statement) for n in graph.nodes() if isinstance(n, Computed))


def test_the_registry_has_every_network():
    assert set(models.names()) == set(manifest()) | OURS
    assert models.registry.DEFAULT in models.names()


@pytest.mark.parametrize("name", models.names())
def test_sizes_and_state_dict(name):
    entry = models.find(name)
    network = models.create(name)
    graph = network.trace((1, *entry.input, 3), abstract=True)
    # Asserts on a node itself would print the whole graph.
    shapes = [output.shape for output in graph.outputs]
    assert shapes == [(1, 1000)]
    assert network.count_parameters() == entry.parameters
    total = total_multiply_adds(graph)
    assert total == entry.multiply_adds
    assert not network.transform_input
    assert network.name == name
    if name in OURS:
        return
    expected = manifest()[name]
    shapes = {key: list(shape) for key, shape in network.state_shapes().items()}
    assert list(shapes.items()) == list(expected["state_dict"].items())
    assert entry.parameters == expected["parameters"]
    assert entry.multiply_adds == expected["multiply_adds"]
    assert list(entry.input) == expected["input"]


@pytest.mark.parametrize("name", models.names())
def test_labels_are_unique_and_parameters_named(name):
    graph = models.create(name).trace((1, *models.find(name).input, 3), abstract=True)
    nodes = graph.nodes()
    labels = [node.label for node in nodes if isinstance(node, Computed | Concatenated)]
    assert len(set(labels)) == len(labels)
    shapes = models.create(name).state_shapes()
    assert all(
        n.name in shapes or n.name.endswith((".R", ".C")) for n in nodes if hasattr(n, "array")
    )


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_mean_what_torchvision_computes(name):
    network = models.create(name)
    network.load_state_dict(state_dict(name))
    images, expected = list(cases(name))[1]
    (found,) = evaluate(network.trace(images.shape, layout="NCHW"), images)
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_networks_compute_what_torchvision_computes(name):
    network = models.create(name)
    network.load_state_dict(state_dict(name))
    for images, expected in cases(name):
        assert difference(network(images, layout="NCHW"), expected) < 1e-5


def test_the_lecture_network_has_the_lecture_shapes():
    graph = models.create("alexnet_2012").trace((1, 227, 227, 3), abstract=True)
    shapes = {node.label: node.shape for node in graph.nodes() if isinstance(node, Computed)}
    assert list(shapes.items()) == [
        ("features.0", (1, 55, 55, 96)),
        ("features.1", (1, 55, 55, 96)),
        ("features.2", (1, 55, 55, 96)),
        ("features.3", (1, 27, 27, 96)),
        ("features.4", (1, 27, 27, 256)),
        ("features.5", (1, 27, 27, 256)),
        ("features.6", (1, 27, 27, 256)),
        ("features.7", (1, 13, 13, 256)),
        ("features.8", (1, 13, 13, 384)),
        ("features.9", (1, 13, 13, 384)),
        ("features.10", (1, 13, 13, 384)),
        ("features.11", (1, 13, 13, 384)),
        ("features.12", (1, 13, 13, 256)),
        ("features.13", (1, 13, 13, 256)),
        ("features.14", (1, 6, 6, 256)),
        ("flatten", (1, 9216)),
        ("classifier.0", (1, 4096)),
        ("classifier.1", (1, 4096)),
        ("classifier.3", (1, 4096)),
        ("classifier.4", (1, 4096)),
        ("classifier.6", (1, 1000)),
    ]


def test_the_paper_googlenet_has_the_paper_size():
    network = models.create("googlenet_2014")
    shapes = network.state_shapes()
    assert shapes["inception3a.branch3.1.conv.weight"] == (32, 16, 5, 5)
    heads = sum(np.prod(s) for n, s in shapes.items() if n.startswith("aux"))
    # The reference model of the paper's authors, without its auxiliary heads.
    assert network.count_parameters() - heads == 6_998_552


@pytest.mark.parametrize(
    ("name", "size", "heads"),
    [("googlenet", 224, 2), ("googlenet_2014", 224, 2), ("inception_v3", 299, 1)],
)
def test_auxiliary_heads_can_be_traced(name, size, heads):
    network = models.create(name, classes=7)
    graph = network.trace((2, size, size, 3), abstract=True, forward=network.forward_with_heads)
    shapes = [output.shape for output in graph.outputs]
    assert shapes == [(2, 7)] * (1 + heads)


def test_tracing_is_quick():
    network = models.create("densenet201")
    network.trace((1, 224, 224, 3), abstract=True)
    start = time.process_time()
    network.trace((1, 224, 224, 3), abstract=True)
    assert time.process_time() - start < 0.3


def test_making_a_large_network_draws_nothing():
    network = models.create("vgg16")
    assert len(list(network.initials())) == 32


def test_random_weights_depend_on_names_alone():
    one, two = (models.create("squeezenet1_1") for _ in range(2))
    for name, array in one.state_dict().items():
        assert np.array_equal(array, two.state_dict()[name])
    first = one.state_dict()
    assert not np.array_equal(
        first["features.3.expand1x1.weight"], first["features.4.expand1x1.weight"]
    )


def test_parts_can_be_reached_and_replaced():
    network = models.create("resnet50")
    assert network.layer4[2].conv2.weight.shape == (3, 3, 512, 512)
    network.layer4[2].conv2 = type(network.fc)(1, 1)
    assert network.state_shapes()["layer4.2.conv2.weight"] == (1, 1)


def test_stride_is_on_the_3x3_of_a_bottleneck():
    network = models.create("resnet50")
    assert (network.layer2[0].conv1.stride, network.layer2[0].conv2.stride) == (1, 2)


def test_batch_norm_constants_of_the_families():
    assert models.create("inception_v3").Conv2d_1a_3x3.bn.eps == 1e-3
    assert models.create("googlenet").conv1.bn.eps == 1e-3
    assert models.create("mnasnet1_0").layers[1].momentum == 3e-4
    assert models.create("resnet18").bn1.eps == 1e-5
    assert models.create("efficientnet_lite0")._bn0.eps == 1e-3


def test_old_names_of_densenet():
    network = models.create("densenet121", classes=3)
    state = network.state_dict()
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): array
        for name, array in state.items()
        if "num_batches_tracked" not in name
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    other = DenseNet(models.densenet.VARIANTS["densenet121"], 3)
    other.load_state_dict(old)
    assert all(np.array_equal(other.state_dict()[name], array) for name, array in state.items())


def test_both_versions_of_mnasnet():
    first, second = MNASNet(0.5, version=1), MNASNet(0.5, version=2)
    assert first.state_shapes()["layers.0.weight"] == (32, 3, 3, 3)
    assert second.state_shapes()["layers.0.weight"] == (16, 3, 3, 3)
    second.load_state_dict(first.state_dict())
    assert second.version == 1
    assert second.trace((1, 64, 64, 3)).outputs[0].shape == (1, 1000)
    with pytest.raises(ValueError, match="version is 3"):
        MNASNet(0.5, version=3)
    with pytest.raises(StateDictError, match="layers"):
        MNASNet(0.5).load_state_dict(MNASNet(0.75).state_dict())


def test_a_file_without_auxiliary_heads(tmp_path):
    network = models.create("googlenet", classes=5)
    state = {n: a for n, a in network.state_dict().items() if not n.startswith("aux")}
    path = tmp_path / "googlenet.safetensors"
    write_safetensors(path, state)
    loaded = models.create("googlenet", path)
    assert loaded.aux1 is None
    assert loaded.state_shapes().keys() == state.keys()
    assert loaded.trace((1, 64, 64, 3)).outputs[0].shape == (1, 5)
    partly = {n: a for n, a in network.state_dict().items() if n != "aux1.fc2.bias"}
    with pytest.raises(StateDictError, match=r"missing \(1\): aux1.fc2.bias"):
        network.load_state_dict(partly)


def test_input_is_rescaled_for_published_inception_weights_alone(tmp_path):
    state = models.create("inception_v3").state_dict()
    for file, rescaled in (
        ("inception_v3_google-0cc3c7bd.pth", True),
        ("mine.safetensors", False),
    ):
        path = tmp_path / file
        write_safetensors(path, state)
        assert models.create("inception_v3", path).transform_input is rescaled
    assert not models.create("inception_v3", path, transform_input=False).transform_input
    network = models.create("googlenet", transform_input=True)
    graph = network.trace((1, 64, 64, 3), abstract=True)
    first = next(node for node in graph.nodes() if isinstance(node, Computed))
    assert first.label == "scale_and_shift"
    image = np.array([0.2, 0.5, 0.9], np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scale, shift = (operand.array for _, operand in first.operands[1:])
    np.testing.assert_allclose((image - mean) / std * scale + shift, image * 2 - 1, atol=1e-6)


def test_other_classes_keep_the_body_and_make_a_new_head(tmp_path):
    network = models.create("mobilenet_v2", classes=12)
    path = tmp_path / "mine.safetensors"
    write_safetensors(path, network.state_dict())
    same = models.create("mobilenet_v2", path)
    assert same.state_shapes()["classifier.1.weight"] == (12, 1280)
    with pytest.warns(models.NewHeadWarning, match=r"12 classes, not 4: .*classifier\.1"):
        other = models.create("mobilenet_v2", path, classes=4)
    assert other.state_shapes()["classifier.1.bias"] == (4,)
    body = [name for name in same.state_dict() if not name.startswith("classifier")]
    for name in body:
        assert np.array_equal(other.state_dict()[name], network.state_dict()[name])
    with pytest.raises(StateDictError, match="unexpected"):
        models.create("mnasnet1_0", path, classes=12)


def test_real_weights_in_a_package():
    network = models.create("efficientnet_lite0", "imagenet")
    assert list(network.initials()) == []
    assert network.trace((1, 224, 224, 3)).outputs[0].shape == (1, 1000)


@pytest.mark.parametrize(
    ("name", "says"),
    [("resnet51", "did you mean resnet50"), ("", "`striate models` lists them"), (None, "None")],
)
def test_unknown_names(name, says):
    with pytest.raises(ValueError, match=says):
        models.create(name)


def test_hostile_arguments():
    with pytest.raises(ValueError, match="classes is 0"):
        models.create("resnet18", classes=0)
    with pytest.raises(TypeError, match=r"classes is 1\.5"):
        models.create("resnet18", classes=1.5)
    with pytest.raises(TypeError, match="version"):
        models.create("resnet18", version=1)
    with pytest.raises(ValueError, match="no value of p fits"):
        models.create("inception_v3").trace((1, 40, 40, 3), abstract=True)
    with pytest.raises(ValueError, match="last axis must be 9216"):
        models.create("alexnet_2012").trace((1, 300, 300, 3), abstract=True)
    with pytest.raises(ValueError, match="has 1 features"):
        models.create("vgg11").trace((1, 224, 224, 1), abstract=True)


def test_presets_of_all_published_files_are_torchvisions():
    """The resize of torchvision's files; every hash that has a preset is that of a file."""
    from striate.weights.catalogue import PACKAGED, PUBLISHED, hash_prefix
    from striate.weights.presets import _OTHERS, preset_of_file

    later = {"resnext101_64x4d", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"}
    later |= {"mnasnet0_75", "mnasnet1_3"}
    for name, files in PUBLISHED.items():
        first, *second = (preset_of_file(file).resize for file in files)
        expected = 342 if name == "inception_v3" else 232 if name in later else 256
        assert (first, second) == (expected, [232] * (len(files) - 1)), name
    files = [file for group in PUBLISHED.values() for file in group]
    files += [entry[2] for entry in PACKAGED.values()]
    assert _OTHERS.keys() <= {hash_prefix(file) for file in files}


def test_input_sizes_are_the_presets():
    sizes = {name: models.find(name).input for name in models.names()}
    others = {name: size for name, size in sizes.items() if size != (224, 224)}
    assert others == {"alexnet_2012": (227, 227), "inception_v3": (299, 299)}
