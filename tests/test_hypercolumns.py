"""Hypercolumns against their definition in NumPy, for every family; and what must not go wrong."""

import threading

import numpy as np
import pytest
from PIL import Image
from reference import evaluate

import striate as st
from striate import models
from striate.layers import Concatenate, Conv2d, ReLU, Sequential
from striate.layers.extract import feature_graph, survey
from striate.vision import hypercolumns as columns
from striate.vision.hypercolumns import Grid, Layer, Passage

FAMILIES = (
    *("alexnet", "vgg11", "resnet18", "squeezenet1_1", "densenet121", "inception_v3", "googlenet"),
    *("shufflenet_v2_x0_5", "mobilenet_v2", "resnext50_32x4d", "wide_resnet50_2", "mnasnet0_5"),
    *("efficientnet_lite0", "alexnet_2012", "googlenet_2014"),
)


def by_floor_rule(maps, strides, size):
    """The lecture's h[x,y,i] = L[floor(x/f), floor(y/f), i] of all maps, one after another."""
    columns = []
    for map, stride in zip(maps, strides, strict=True):
        whole = np.empty((*size, map.shape[2]), map.dtype)
        for x in range(size[0]):
            for y in range(size[1]):
                row, column = min(x // stride, len(map) - 1), min(y // stride, len(map[0]) - 1)
                whole[x, y] = map[row, column]
        columns.append(whole)
    return np.concatenate(columns, -1)


def between_centres(map, stride, x, y):
    """Bilinear interpolation between the cells' centres, one pixel at a time, in float64."""
    total = np.zeros(map.shape[2])
    for axis_x in (0, 1):
        for axis_y in (0, 1):
            u, v = (x + 0.5) / stride - 0.5, (y + 0.5) / stride - 0.5
            row, column = int(np.floor(u)) + axis_x, int(np.floor(v)) + axis_y
            weight = (1 - abs(u - row)) * (1 - abs(v - column))
            row, column = np.clip(row, 0, len(map) - 1), np.clip(column, 0, len(map[0]) - 1)
            total += weight * map[row, column].astype(np.float64)
    return total


def net():
    return Sequential(
        Conv2d(3, 5, 3, 2, 1), ReLU(), Conv2d(5, 7, 3, 2, 1), ReLU(), Conv2d(7, 6, 3, 2, 1)
    )


@pytest.fixture
def photo():
    return np.random.default_rng(3).standard_normal((37, 29, 3), np.float32)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_by_the_definition(name):
    model = models.create(name)
    size = (75, 91) if name != "inception_v3" else (96, 107)
    image = np.random.default_rng(0).standard_normal((*size, 3), np.float32)
    stages = [stage for stage in survey(model, (1, *size, 3)).stages if stage != "stride1"]
    graph, _ = feature_graph(model, (1, *size, 3), stages)
    maps = [map[0] for map in evaluate(graph, image[np.newaxis])]
    expected = by_floor_rule(maps, [int(stage[6:]) for stage in stages], size)
    found = st.hypercolumns(model, image)
    assert [layer.name for layer in found.layers] == stages
    assert found.values.shape == expected.shape
    for layer in found.layers:
        part = expected[..., layer.columns]
        assert np.abs(found[layer.name] - part).max() <= 2e-5 * np.abs(part).max()
    # The very bits of the maps that come from a program of their own.
    own = model.features(image[np.newaxis], stages)
    again = by_floor_rule([own[s][0] for s in stages], [int(s[6:]) for s in stages], size)
    assert np.array_equal(found.values, again)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_chosen_pixels_are_those_of_the_stack(photo, interpolation):
    model = net()
    random = np.random.default_rng(1)
    at = np.stack([random.integers(0, 37, 40), random.integers(0, 29, 40)], 1)
    at[:4] = [[0, 0], [36, 28], [0, 28], [36, 0]]
    whole = st.hypercolumns(model, photo, interpolation=interpolation)
    some = st.hypercolumns(model, photo, at=at, interpolation=interpolation)
    close = np.testing.assert_allclose
    close(some.values, whole.values[at[:, 0], at[:, 1]], rtol=1e-5, atol=1e-6)
    assert some.layers == whole.layers
    if interpolation == "bilinear":
        maps = model.features(photo[np.newaxis], [layer.name for layer in some.layers])
        for (x, y), column in zip(at.tolist(), some.values, strict=True):
            expected = [between_centres(m[0], int(n[6:]), x, y) for n, m in maps.items()]
            close(column, np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_bilinear_is_what_interpolate_does_where_strides_divide():
    image = np.random.default_rng(2).standard_normal((32, 48, 3), np.float32)
    model = net()
    found = st.hypercolumns(model, image, ["stride8"], interpolation="bilinear")
    map = model.features(image[np.newaxis], ["stride8"])["stride8"]
    expected = st.interpolate(map, (32, 48), mode="bilinear")[0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)


def test_layers_by_name_in_the_order_asked(photo):
    model = net()
    found = st.hypercolumns(model, photo, ["4", "input", "stride2"], at=[[5, 6]])
    assert [(layer.name, layer.columns) for layer in found.layers] == [
        ("4", slice(0, 6)),
        ("input", slice(6, 9)),
        ("stride2", slice(9, 14)),
    ]
    assert np.array_equal(found["input"][0], photo[5, 6])
    maps = model.features(photo[np.newaxis], ["4", "stride2"])
    assert np.array_equal(found["stride2"][0], maps["stride2"][0, 2, 3])
    assert np.array_equal(found["4"][0], maps["4"][0, 0, 0])
    with pytest.raises(KeyError, match="layers are 4, input, stride2"):
        found["5"]


def test_concatenations_are_seen_in_place(photo):
    inner = Sequential(Conv2d(5, 4, 3, padding=1), ReLU())
    model = Sequential(
        Conv2d(3, 5, 3, 2, 1), Concatenate(inner, Sequential(ReLU())), Conv2d(9, 3, 3)
    )
    names = ["0", "1.0", "1.1", "1", "2"]
    maps = model.features(photo[np.newaxis], names)
    at = [[0, 0], [20, 11], [36, 28]]
    found = st.hypercolumns(model, photo, names, at)
    expected = np.concatenate(
        [
            maps[n][0][
                [min(x // 2, len(maps[n][0]) - 1) for x, _ in at],
                [min(y // 2, maps[n].shape[2] - 1) for _, y in at],
            ]
            for n in names
        ],
        1,
    )
    assert np.array_equal(found.values, expected)


def test_watching_takes_no_memory_of_its_own(photo):
    model = models.create("resnet18")
    shape = (1, 256, 192, 3)
    whole = model.compile(shape)
    passage = Passage.of(model, shape[1:], None)
    assert passage.executable.arena_bytes <= whole.arena_bytes
    assert passage.executable.program.outputs == ()


def test_several_threads_at_once(photo):
    model = net()
    images = [photo + k for k in range(6)]
    at = [[3, 4], [30, 20]]
    expected = [st.hypercolumns(model, image, at=at).values for image in images]
    found = [[] for _ in images]

    def work(k):
        for _ in range(20):
            found[k].append(st.hypercolumns(model, images[k], at=at).values)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(v, e) for vs, e in zip(found, expected, strict=True) for v in vs)


def test_an_error_while_watching_leaves_the_program_whole(photo):
    model = net()
    passage = Passage.of(model, photo.shape, None)
    expected = st.hypercolumns(model, photo, at=[[1, 2]]).values

    def refuse(layer, cells):
        assert not cells.flags.writeable
        raise RuntimeError(layer.name)

    with pytest.raises(RuntimeError, match="stride2"):
        passage.run(photo, refuse)
    assert np.array_equal(st.hypercolumns(model, photo, at=[[1, 2]]).values, expected)


def test_photos_are_scaled_and_not_resized(tmp_path):
    values = np.random.default_rng(4).integers(0, 256, (21, 34, 3)).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(values).save(path)
    found = st.hypercolumns(net(), str(path), ["input"])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found.values, (values / 255 - mean) / std, atol=1e-5)
    again = st.hypercolumns(net(), Image.open(path), ["input"])
    assert np.array_equal(found.values, again.values)


def test_large_stacks_need_room(photo, monkeypatch, tmp_path):
    model = net()
    expected = st.hypercolumns(model, photo).values
    monkeypatch.setattr(columns, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"37 x 29 x 18, take 0\.0 GiB: .*out="):
        st.hypercolumns(model, photo)
    out = np.memmap(tmp_path / "stack", np.float32, "w+", shape=(37, 29, 18))
    assert st.hypercolumns(model, photo, out=out).values is out
    assert np.array_equal(out, expected)
    with pytest.raises(ValueError, match=r"out is float32 \[3, 18\]; expected float32 \[2, 18\]"):
        st.hypercolumns(model, photo, at=[[0, 0], [1, 1]], out=np.empty((3, 18), np.float32))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"at": [[37, 0]]}, ValueError, "row 37 and column 0; the image has rows 0 to 36"),
        ({"at": [[0, -1]]}, ValueError, "row 0 and column -1"),
        ({"at": [[0.5, 1]]}, ValueError, "expected integers"),
        ({"at": [1, 2]}, ValueError, "expected integers"),
        ({"interpolation": "cubic"}, ValueError, "expected 'nearest' or 'bilinear'"),
        ({"layers": []}, ValueError, "layers is"),
        ({"layers": "stride2"}, ValueError, "expected a list"),
        ({"layers": ["0", "0.x"]}, ValueError, "no feature called '0.x'"),
        ({"layers": ["3", "stride4"]}, ValueError, "the same tensor"),
        ({"layers": ["pooled"]}, ValueError, r"'pooled' is no map .* \[1, 6\]"),
    ],
)
def test_bad_requests_are_said(photo, options, error, says):
    model = Sequential(**net().parts(), pooled=st.layers.GlobalAvgPool2d())
    with pytest.raises(error, match=says):
        st.hypercolumns(model, photo, **options)


def test_bad_images_are_said():
    for bad in (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.float32)):
        with pytest.raises(TypeError, match=r"Image\.fromarray"):
            st.hypercolumns(net(), bad)


def test_the_grid_at_odd_strides():
    from fractions import Fraction

    layer = Layer("up", (9, 3, 1), (Fraction(2, 3), Fraction(3, 2)), slice(0, 1))
    cell, _, _ = Grid(layer, "nearest").cells(0, np.arange(6))
    assert cell.tolist() == [0, 1, 3, 4, 6, 7]
    cell, _, _ = Grid(layer, "nearest").cells(1, np.arange(6))
    assert cell.tolist() == [0, 0, 1, 2, 2, 2]
