"""What `striate.inspect` says of a network, and where a network finds a class."""

from dataclasses import replace
from pathlib import Path

import golden_numbers
import numpy as np
import pytest
from random_graphs import evaluate

import striate as st
from striate.layers.tracing import draw_graph
from striate.models import create
from striate.network.gradient import depends, gradient
from striate.network.graph import Computed, Concatenated, Graph, Input
from striate.network.outline import Kind, blocks, outline
from striate.pictures.heat import on_pixels
from striate.vision.activation import class_activation_map

COFFEE = Path(__file__).resolve().parent.parent / "examples" / "photos" / "coffee.png"
NAMES = list(golden_numbers.manifest())


@pytest.mark.parametrize("name", NAMES)
def test_layers_add_up_to_the_manifest(name):
    expected = golden_numbers.manifest()[name]
    found = st.inspect(name)
    assert found.input == (1, *expected["input"], 3)
    assert found.parameters == expected["parameters"]
    assert sum(layer.parameters for layer in found.layers) + found.unused == found.parameters
    assert (found.unused > 0) == (name in ("googlenet", "inception_v3"))
    assert found.multiply_adds == expected["multiply_adds"]
    costs = found.costs()
    assert len(costs) <= 36
    assert sum(part.multiply_adds for part in costs) == found.multiply_adds
    assert sum(part.parameters for part in costs) == found.parameters - found.unused
    assert [layer.bytes for layer in found.layers] == [
        4 * np.prod(layer.shape) for layer in found.layers
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_outline_loses_nothing(name):
    graph = st.inspect(name).graph
    every = blocks(graph)
    held = [layer for block in every for layer in block.layers]
    assert {*held} == {n for n in graph.nodes() if isinstance(n, Computed | Concatenated)}
    assert len(held) == len({*held})
    units = outline(graph)
    assert sum(unit.repeats * len(unit.blocks) for unit in units) == len(every)
    assert units[-1].blocks[-1].shape == graph.outputs[0].shape
    # Nothing goes past the end of a unit: all that is read from before it is read from its entry.
    for unit in units:
        for number, block in enumerate(unit.blocks):
            assert all(-1 <= source < number for source in block.operands)
        read = {source for block in unit.blocks for source in block.operands}
        assert {*range(len(unit.blocks) - 1)} <= read


def test_an_outline_is_what_a_person_would_draw():
    units = outline(st.inspect("densenet121").graph)
    block = next(unit for unit in units if unit.name == "features.denseblock3")
    assert (block.repeats, block.shape) == (24, (1, 14, 14, 1024))
    assert [one.text for one in block.blocks] == ["1×1, 128", "3×3, 32", "concat"]
    units = outline(st.inspect("mobilenet_v2").graph)
    texts = [block.text for block in units[3].blocks]
    assert texts == ["1×1, 96", "3×3/2, depthwise", "1×1, 24"]
    kinds = {block.kind for unit in units for block in unit.blocks}
    assert kinds == {*Kind} - {Kind.OTHER}


def test_inspect_takes_a_network_or_its_name_and_a_size():
    model = create("squeezenet1_1")
    by_module, by_name = st.inspect(model, (65, 97)), st.inspect("squeezenet1_1", (65, 97))
    assert by_module.record() == by_name.record()
    assert by_module.input == (1, 65, 97, 3)
    own = st.Sequential(st.layers.Conv2d(3, 4, 3))
    assert st.inspect(own, 8, batch=2).layers[0].shape == (2, 6, 6, 4)
    assert st.inspect(own, 8).model == "Sequential"
    with pytest.raises(ValueError, match="Sequential has no size of its own"):
        st.inspect(own)
    with pytest.raises(ValueError, match="no network 'lenet'"):
        st.inspect("lenet")


def test_shared_parameters_count_once():
    class Twice(st.Module):
        def __init__(self):
            self.conv = st.layers.Conv2d(3, 3, 3, padding=1)

        def forward(self, input):
            return self.conv(self.conv(input))

    found = st.inspect(Twice(), 5)
    assert [layer.parameters for layer in found.layers] == [84, 0]
    assert found.unused == 0


def test_times_have_a_share_of_the_roofline():
    found = st.inspect("squeezenet1_1", 64, time=True, threads=1)
    timed = {layer.layer: layer for layer in found.layers if layer.seconds is not None}
    assert "features.0" in timed
    for layer in timed.values():
        assert layer.seconds > 0
        assert layer.roofline > 0
    assert any(part.seconds for part in found.costs())


def test_a_gradient_is_what_differences_say():
    draw = np.random.default_rng(0).standard_normal
    weight = draw((3, 3, 2, 4)).astype(np.float32)
    head = draw((6, 3)).astype(np.float32)

    def forward(x):
        branch = st.max_pool2d(st.relu(st.conv2d(x, weight, padding=1)), 2)
        joined = st.concatenate([branch, st.avg_pool2d(x, 2)])
        return st.linear(st.global_avg_pool2d(st.layers.add(joined, joined)), head)

    graph = draw_graph(forward, (1, 4, 6, 2), {})
    (image,), (output,) = graph.inputs, graph.outputs
    cotangent = Input("cotangent", output.shape)
    slope = gradient(output, image, cotangent)
    assert slope is not None
    assert depends(slope, image)  # through relu and the max
    value, direction = draw(image.shape), draw(output.shape)
    (found,) = evaluate(Graph((image, cotangent), (slope,)), value, direction)
    for place in np.ndindex(*value.shape):
        step = np.zeros(value.shape)
        step[place] = 1e-6
        above, below = (
            (evaluate(graph, value + sign * step)[0] * direction).sum() for sign in (1, -1)
        )
        assert found[place] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)
    assert gradient(output, Input("other", (1,)), cotangent) is None


def photo():
    image = st.images.load(COFFEE)
    return st.images.preset_for("efficientnet_lite0")(image)[None]


@pytest.fixture(scope="module")
def trained():
    return create("efficientnet_lite0", weights="imagenet")


def test_a_class_map_is_what_zhou_et_al_define(trained):
    """The head's weights times the last features; with the bias they are the score."""
    images = photo()
    found = class_activation_map(trained, images, 967)
    assert found.linear
    features = st.features(trained, images, [found.layer])[found.layer]
    weight, bias = trained._fc.weight, trained._fc.bias
    expected = features @ weight[:, 967] / (features.shape[1] * features.shape[2])
    np.testing.assert_allclose(found.map, expected, atol=1e-5 * np.abs(expected).max())
    assert found.map.sum() + bias[967] == pytest.approx(found.scores[0, 967], rel=1e-4)
    np.testing.assert_allclose(found.scores, trained(images), rtol=1e-4, atol=1e-4)


def test_a_class_map_is_highest_on_the_object(trained):
    """The cup fills the middle of the photo."""
    found = class_activation_map(trained, photo(), 967)
    spread = on_pixels(found.map[0], *found.centres(), (224, 224))
    row, column = np.unravel_index(spread.argmax(), spread.shape)
    assert 20 < row < 170
    assert 40 < column < 190


def test_a_class_map_where_the_score_is_no_linear_function(trained):
    found = class_activation_map(trained, photo(), 967, "_blocks.12.add")
    assert not found.linear
    body = (st.layers.Conv2d(3, 4, 3, 2), st.layers.Flatten(), st.layers.Linear(4 * 7 * 7, 8))
    deep = st.Sequential(*body, st.layers.ReLU(), st.layers.Linear(8, 5))
    found = class_activation_map(deep, np.ones((1, 16, 16, 3), np.float32), 3)
    assert not found.linear
    assert np.isfinite(found.map).all()
    squeezed = class_activation_map(create("squeezenet1_1"), np.ones((1, 64, 64, 3), np.float32), 3)
    assert squeezed.linear


def test_class_maps_of_what_there_is_not(trained):
    images = photo()
    with pytest.raises(ValueError, match="class 1000 of a network"):
        class_activation_map(trained, images, 1000)
    with pytest.raises(ValueError, match="no feature called 'nowhere'"):
        class_activation_map(trained, images, 1, "nowhere")
    with pytest.raises(ValueError, match="has no places"):
        class_activation_map(trained, images, 1, "_fc")
    with pytest.raises(ValueError, match="expected scores"):
        class_activation_map(st.Sequential(st.layers.Conv2d(3, 4, 3)), images, 1)


def test_the_middles_of_a_class_map_are_those_of_what_cells_see(trained):
    found = class_activation_map(trained, photo(), 967)
    rows, columns = found.centres()
    assert (rows[3], columns[4]) == tuple(
        field.centre(cell) + 0.5 for field, cell in zip(found.fields, (3, 4), strict=True)
    )
    # Where no window tells what cells see they have their own middles.
    seen = [replace(field, window=None) for field in found.fields]
    first = seen[0].pixels(0)
    assert replace(found, fields=tuple(seen)).centres()[0][0] == (first.start + first.stop) / 2


def test_a_class_map_of_any_feature_by_its_name(trained):
    one = class_activation_map(trained, photo(), 967, "stride8")
    other = class_activation_map(trained, photo(), 967, "_blocks.4")
    assert np.array_equal(one.map, other.map)
    assert one.layer == "stride8"
    image = class_activation_map(trained, photo(), 967, "input")
    assert image.map.shape == (1, 224, 224)
