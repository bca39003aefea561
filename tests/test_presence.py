"""Where a network sees a class in a photo: `striate dense`, its maps and its pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import striate as st
from striate.cli.main import app
from striate.images import UnknownClassError, find_class, load
from striate.pictures.figures import stacked
from striate.pictures.heat import Heat, on_pixels
from striate.vision.classification import preset_of
from striate.vision.presence import presence, working_size

PHOTOS = Path(__file__).resolve().parent.parent / "examples" / "photos"
# The class of a photo, and by hand a box around its object: rows, then columns, of pixels.
BOXES = {
    "coffee.png": ("espresso", (18, 285), (172, 410)),
    "camera.png": ("tripod", (140, 512), (228, 410)),
    "chelsea.png": ("Egyptian cat", (0, 300), (0, 372)),
    "china.jpg": ("palace", (28, 390), (62, 354)),
}


@pytest.fixture(scope="module")
def lite():
    return st.models.create("efficientnet_lite0", weights="imagenet")


@pytest.mark.parametrize("photo", BOXES)
def test_the_map_is_highest_on_the_object(photo, lite):
    name, rows, columns = BOXES[photo]
    image = load(PHOTOS / photo)
    network = st.dense(lite, 16, margin=112)
    found = presence(network, preset_of(lite), image, [find_class(name).index])
    pixels = on_pixels(found.maps[0], *found.centres(), image.size[::-1])
    inside = np.zeros(pixels.shape, bool)
    inside[slice(*rows), slice(*columns)] = True
    assert pixels[inside].mean() > 3 * pixels[~inside].mean()
    p, q = np.unravel_index(found.maps[0].argmax(), found.maps[0].shape)
    middles = found.centres()
    assert rows[0] <= middles[0][p] < rows[1]
    assert columns[0] <= middles[1][q] < columns[1]


def test_the_most_present_classes_are_those_of_the_greatest_mean(lite):
    image = load(PHOTOS / "coffee.png")
    network = st.dense(lite, 64, margin=112)
    found = presence(network, preset_of(lite), image, top=1000, size=(300, 450))
    assert found.maps.shape == (1000, *found.geometry.shape)
    assert np.abs(found.maps.sum(0) - 1).max() < 1e-4
    means = found.maps.mean((1, 2))
    assert (np.diff(means) <= 0).all()
    alone = presence(network, preset_of(lite), image, found.classes[2:0:-1], size=(300, 450))
    assert (alone.maps == found.maps[2:0:-1]).all()
    network.memory = 1000
    with pytest.raises(ValueError, match="maps of all 1000 classes take more than 1000 bytes"):
        presence(network, preset_of(lite), image, size=(300, 450))


def test_pixels_lie_between_the_middles_of_windows():
    cells = np.array([[0.0, 1.0], [2.0, 3.0]])
    pixels = on_pixels(cells, np.array([1.5, 5.5]), np.array([0.5, 2.5]), (7, 3))
    assert pixels[:, 0].tolist() == [0, 0, 0.5, 1, 1.5, 2, 2]
    assert pixels[1].tolist() == [0, 0.5, 1]
    assert (on_pixels(cells[:1, :1] + 4, np.array([3.0]), np.array([9.0]), (2, 2)) == 4).all()


def test_the_working_size():
    assert working_size((400, 600), (224, 224)) == (448, 672)
    assert working_size((400, 600), (224, 224), 0.5) == (200, 300)
    with pytest.raises(ValueError, match="the scale is 0; expected a number above 0"):
        working_size((400, 600), (224, 224), 0)


def test_the_picture_has_a_panel_and_a_bar_for_each_class():
    photo = np.full((20, 30, 3), 255, np.uint8)
    maps = [("a", np.zeros((20, 30))), ("b", np.eye(20, 30))]
    figure = stacked([Heat("title", photo, maps, "probability", shares=True)])
    _, plain, *panels = figure.axes
    assert plain.get_title(loc="left") == ""
    assert [panel.get_title(loc="left") for panel in panels] == ["a", "", "b", ""]
    assert [bar.get_ylabel() for bar in panels[1::2]] == ["probability"] * 2


def invoke(*arguments):
    return CliRunner().invoke(app, ["dense", *map(str, arguments)])


def test_the_command_writes_a_picture_and_the_map(tmp_path):
    picture = tmp_path / "map.png"
    options = ["--class", "espresso", "--class", "n02123597", "--size", "224x240", "--json"]
    result = invoke(PHOTOS / "coffee.png", *options, "-o", picture)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert [one["name"] for one in said["classes"]] == ["espresso", "Siamese cat"]
    maps = np.load(tmp_path / "map.npy")
    assert maps.shape == (2, *said["shape"]) == (2, 15, 16)
    assert maps.dtype == np.float32
    assert (said["window"], said["stride"], said["offset"]) == ([224, 224], [16, 16], [-112, -112])
    assert maps[0].max() == np.float32(said["classes"][0]["most"]) > 0.5 > maps[1].max()
    assert min(load(picture).size) > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.npy", "map.png"]


def test_the_command_names_the_most_present(tmp_path):
    options = ["--size", "224", "--top", 2, "--output-stride", 112, "-o", tmp_path / "map.svg"]
    result = invoke(PHOTOS / "coffee.png", *options)
    assert result.exit_code == 0, result.output
    first, _second, files = result.stdout.splitlines()
    assert first.startswith("espresso: up to ")
    assert "at 300,200 (X,Y)" in first
    assert "map.svg" in files
    assert (tmp_path / "map.svg").read_text().count("probability") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--class", "espreso"], "did you mean 'espresso'"),
        (["--class", "espres"], "stands in names of classes 550 (espresso maker) and 967"),
        (["--class", "1000"], "there is no class 1000"),
        (["--size", "10xx"], "--size is '10xx', expected HEIGHTxWIDTH"),
        (["--size", "60000x60000", "--class", "1"], "scaled to 60000 x 60000 pixels; expected"),
        (["--scale", "1e9"], "pixels; expected at most 67108864"),
        (
            ["--output-stride", "1", "--class", "1"],
            "a larger output stride and a narrower image take less",
        ),
        (["--scale", "-1"], "the scale is -1.0; expected a number above 0"),
        (["--scale", "1", "--size", "224"], "choose one of --size and --scale"),
        (["-o", "map.txt"], "expected a name that ends in"),
        (["-o", "missing/map.png"], "missing"),
        (["--model", "lenet"], "there is no network 'lenet'"),
        (["--output-stride", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_done_is_said(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(PHOTOS / "coffee.png", "-o", "map.png", *options)
    assert result.exit_code == 2
    assert said in result.output
    assert list(tmp_path.iterdir()) == []


def test_classes_are_found_by_a_part_of_a_name():
    assert find_class("tripo").name == "tripod"
    assert find_class("siamese").name == "Siamese cat"
    assert find_class("sso maker").index == 550
    with pytest.raises(UnknownClassError, match=r"'terrier' stands in names .* and \d+ more; give"):
        find_class("terrier")
    with pytest.raises(UnknownClassError, match="there is no class ''"):
        find_class("")
