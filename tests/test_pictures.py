"""Pictures are files of their kind, legible, and asked for in one way."""

import itertools
import json

import numpy as np
import pytest
from test_cli_commands import COFFEE, striate

import striate as st
from striate.network.outline import outline

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from striate.pictures.architecture import Architecture
from striate.pictures.cost import Column, Costs
from striate.pictures.figures import SUFFIXES, WIDTH, stacked
from striate.pictures.tiles import filters, stretched

STARTS = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}
FAMILIES = [
    *("alexnet", "alexnet_2012", "vgg16", "resnet18", "resnet152", "squeezenet1_0", "densenet121"),
    *("inception_v3", "googlenet", "googlenet_2014", "shufflenet_v2_x1_0", "mobilenet_v2"),
    *("resnext50_32x4d", "mnasnet1_0", "efficientnet_lite0"),
]


def texts(figure):
    """The figure's words with their places, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


def check_legible(figure):
    """No words lie on others or beyond the edge; the words with their widths."""
    words = texts(figure)
    assert words
    height = figure.get_size_inches()[1] * figure.dpi
    for word, box in words:
        assert box.x0 >= 0, word
        assert box.x1 <= WIDTH, word
        assert box.y0 >= 0, word
        assert box.y1 <= height, word
    for (one, left), (other, right) in itertools.combinations(words, 2):
        across = min(left.x1, right.x1) - max(left.x0, right.x0)
        down = min(left.y1, right.y1) - max(left.y0, right.y0)
        assert across <= 0 or down <= 1, (one, other)
    return {word: box.width for word, box in words}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_word_of_an_architecture_can_be_read(name):
    found = st.inspect(name)
    drawing = Architecture(f"{name}: a title", tuple(outline(found.graph)))
    figure = stacked([drawing])
    assert drawing.height < 1000
    widths = check_legible(figure)
    for column in drawing.columns:
        for lanes in column:
            assert all(widths[block.text] <= lanes.box for block in lanes.unit.blocks)
    shown = {int(word[1:]) for word in widths if word.startswith("×")}
    assert shown == {unit.repeats for unit in outline(found.graph)} - {1}


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "densenet201"])
def test_every_word_of_the_costs_can_be_read(name):
    parts = st.inspect(name).costs()
    names = [part.name for part in parts]
    values = [part.bytes for part in parts]
    columns = [Column("a title: 12.3 MB", values, [f"{value:.3g} kB" for value in values])] * 4
    check_legible(stacked([Costs(names, columns)]))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_overview_is_a_file_of_its_kind_and_the_same_every_time(suffix, tmp_path):
    one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix.upper()}"
    result = striate("inspect", "squeezenet1_1", "--plot", one)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{one}: overview of squeezenet1_1 on 1 x 224 x 224 x 3\n"
    striate("inspect", "squeezenet1_1", "--plot", other)
    assert one.read_bytes().startswith(STARTS[suffix])
    assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name, other.name]


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("architecture", [], ["5×5, depthwise", "avg, all", "linear, 1000", "_blocks.12 – 14"]),
        ("cost", ["--time", "--input", "64"], ["_blocks.11", "time: "]),
        ("filters", [], ["_conv_stem: 32 filters of 3×3 pixels"]),
        ("features", ["--image", COFFEE, "--layer", "_blocks.2"], ["features of 56×56"]),
        ("field", ["--image", COFFEE], ["middle cell", "sees 851×851 pixels, every 32"]),
        (
            "field",
            ["--image", COFFEE, "--layer", "_blocks.4", "--cell", "27,0"],
            [
                "cell 27,0 (X,Y) of 28×28",
                "sees 67×67 pixels, every 8",
                "rows 0 to 40, columns 190 to 223",
            ],
        ),
        ("cam", ["--image", COFFEE], ["espresso (95.", "class-activation map of relu6_1"]),
        ("cam", ["--image", COFFEE, "--class", "cup"], ["cup (", "contribution to the class"]),
        (
            "cam",
            ["--image", COFFEE, "--class", "968", "--layer", "_blocks.14"],
            ["gradient times activation"],
        ),
    ],
)
def test_each_picture(what, options, words, tmp_path):
    path = tmp_path / "picture.svg"
    result = striate(
        "inspect", "efficientnet_lite0", "--plot", path, "--what", what, "--json", *options
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["plot"] == str(path)
    assert record["layers"]
    drawing = path.read_text(encoding="utf-8")
    for word in words:
        assert word in drawing


FIELD = ["--plot", "x.png", "--what", "field", "--image", "PHOTO"]
WRONG = {
    "suffix": (["--plot", "x.gif"], "ends in .png, .svg or .pdf"),
    "folder": (["--plot", "nowhere/x.png"], "there is no folder nowhere"),
    "no plot": (["--what", "cost"], "need --plot FILE"),
    "no photo": (["--plot", "x.png", "--what", "cam"], "--what cam needs --image"),
    "missing photo": (
        ["--plot", "x.png", "--what", "field", "--image", "no.jpg"],
        "no.jpg: no such file",
    ),
    "photo for nothing": (
        ["--plot", "x.png", "--image", "a.jpg"],
        "--image is for --what features or field or cam, not for overview",
    ),
    "layer": (
        ["--plot", "x.png", "--what", "filters", "--layer", "_conv_stam"],
        "Did you mean _conv_stem",
    ),
    "layer without filters": (
        ["--plot", "x.png", "--what", "filters", "--layer", "_fc"],
        "_fc has no filters",
    ),
    "filters that are no picture": (
        ["--plot", "x.png", "--what", "filters", "--layer", "_conv_head"],
        "read 320 features",
    ),
    "cell without layer": (
        ["--plot", "x.png", "--what", "field", "--image", "PHOTO", "--cell", "1,1"],
        "--cell needs --layer",
    ),
    "cell beyond": (
        [*FIELD, "--layer", "_blocks.4", "--cell", "28,0"],
        "_blocks.4.add is 28 cells wide and 28 high",
    ),
    "cell a word": (
        [*FIELD, "--layer", "_blocks.4", "--cell", "top"],
        "expected X,Y",
    ),
    "class": (
        ["--plot", "x.png", *["--what", "cam", "--image", "PHOTO", "--class", "expresso"]],
        "did you mean 'espresso'",
    ),
    "no map": (
        ["--plot", "x.png", *["--what", "features", "--image", "PHOTO", "--layer", "_fc"]],
        "which is no map",
    ),
    "not square": (
        ["--plot", "x.png", *["--what", "cam", "--image", "PHOTO", "--input", "64x96"]],
        "a photo is cut to a square",
    ),
    "unknown picture": (["--plot", "x.png", "--what", "movie"], "movie"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, words = WRONG[case]
    given = [str(COFFEE) if option == "PHOTO" else option for option in options]
    result = striate("inspect", "efficientnet_lite0", *given)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_a_picture_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("striate.extras.find_spec", lambda name: None)
    result = striate("inspect", "alexnet", "--plot", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "pip install 'striate[plot]'" in result.stderr


def test_filters_are_in_colour_with_zero_in_the_middle():
    weights = np.zeros((2, 3, 3, 2), np.float32)
    weights[0, 1, 2, 1], weights[1, 2, 0, 0] = 4, -2
    images = filters(weights)
    assert images.shape == (2, 2, 3, 3)
    assert (images[1, 0, 1, 2], images[0, 1, 2, 0], images[0, 0, 0, 0]) == (1, 0.25, 0.5)
    assert filters(weights[:, :, :1]).shape == (2, 2, 3, 3)
    assert (filters(np.zeros((1, 1, 3, 1), np.float32)) == 0.5).all()


def test_maps_are_stretched_each_by_itself():
    maps = np.array([[[1.0, 3.0], [2.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]])
    assert stretched(maps).tolist() == [[[0, 1], [0.5, 0]], [[0, 0], [0, 0]]]
