"""Segmenting by hypercolumns: better than by colours, and linear scores that are what they say."""

import json
from functools import cache

import numpy as np
import pytest
from masked_pictures import intersection_over_union, pictures
from PIL import Image
from typer.testing import CliRunner

import striate as st
from striate import models
from striate.cli.main import app
from striate.cli.photo import parse_pixels
from striate.extras import UnavailableError
from striate.layers import Conv2d, ReLU, Sequential
from striate.pictures.segments import coloured, cut_out, palette
from striate.vision import segmentation
from striate.vision.classification import preset_of
from striate.vision.hypercolumns import pixels_of
from striate.vision.segmentation import LONGEST, regions, segment

PICTURES = {picture.name: picture for picture in pictures()}
POINTS = 8


@cache
def network():
    return models.create("efficientnet_lite0", "imagenet")


def colours(image):
    """Red, green and blue and all their products, for a classifier of colours alone."""
    values = np.asarray(image, np.float32) / 255
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    products = [values[..., i] * values[..., j] for i, j in pairs]
    return np.dstack([values, *products])


def scores(picture, seed=0):
    """Intersection over union by hypercolumns, and by colours with the same points."""
    inside, outside = picture.points(POINTS, seed)
    ours = segment(network(), picture.image, inside, outside)
    plain = segment(Sequential(), colours(picture.image), inside, outside, ["input"])
    return [intersection_over_union(each.mask, picture.mask) for each in (ours, plain)]


def test_hypercolumns_beat_colours_on_eight_of_ten_pictures():
    found = {name: scores(picture) for name, picture in PICTURES.items()}
    assert len(found) == 10
    assert sum(ours > plain for ours, plain in found.values()) >= 8, found
    assert np.mean([ours for ours, _ in found.values()]) > 0.75, found


def small(features=3):
    """A network whose weights do not depend on what was drawn before."""
    network = Sequential(Conv2d(features, 6, 3, 2, 1), ReLU(), Conv2d(6, 5, 3, 2, 1))
    for number, (_, initial) in enumerate(network.initials()):
        initial.seed = number
    return network


def test_scores_are_those_of_the_whole_stack():
    """The maps of scores, enlarged and added, are the scores of the stack that is never made."""
    image = np.random.default_rng(0).standard_normal((30, 44, 3), np.float32)
    model = small()
    inside, outside = [[3, 4], [10, 20]], [[25, 40], [20, 3], [0, 0]]
    found = segment(model, image, inside, outside)
    stack = st.hypercolumns(model, image, interpolation="bilinear").values
    # A linear function of hypercolumns: its values at some pixels give all the others.
    flat = np.column_stack([stack.reshape(-1, stack.shape[2]), np.ones(30 * 44)])
    some = np.random.default_rng(1).permutation(30 * 44)[:100]
    weights, *_ = np.linalg.lstsq(flat[some], found.scores.ravel()[some], rcond=None)
    np.testing.assert_allclose(flat @ weights, found.scores.ravel(), atol=1e-3)
    assert found.scores.shape == (30, 44)
    assert np.array_equal(found.mask, found.scores > 0)
    assert found.mask[3, 4]
    assert not found.mask[25, 40]


def test_large_photos_are_shown_smaller_and_answered_in_full():
    random = np.random.default_rng(5)
    half = np.zeros((60, 90, 3), np.uint8)
    half[:, 45:] = (200, 60, 30)
    noisy = half + random.integers(0, 30, half.shape).astype(np.uint8)
    photo = Image.fromarray(noisy).resize((900, 600), Image.Resampling.NEAREST)
    inside, outside = [[300, 700], [100, 850]], [[300, 100], [500, 250]]
    found = segment(small(), photo, inside, outside, longest=90)
    assert found.mask.shape == (600, 900)
    assert intersection_over_union(found.mask, np.asarray(photo)[..., 0] > 100) > 0.95
    numbers = regions(small(), photo, 2, longest=90)
    assert numbers.shape == (600, 900)
    assert (numbers[:, 500:] == numbers[0, 600]).mean() > 0.9
    assert LONGEST >= 512


def test_regions_are_numbered_by_size():
    numbers = regions(network(), PICTURES["pagoda"].image, 4)
    counts = np.bincount(numbers.ravel())
    assert counts.tolist() == sorted(counts.tolist(), reverse=True)
    assert len(counts) == 4
    assert np.array_equal(numbers, regions(network(), PICTURES["pagoda"].image, 4))
    # One of them is the pagoda, near enough.
    mask = PICTURES["pagoda"].mask
    assert max(intersection_over_union(numbers == k, mask) for k in range(4)) > 0.6


def test_nearest_centres_are_the_largest_scores():
    image = np.random.default_rng(6).standard_normal((24, 20, 3), np.float32)
    model = small()
    numbers = regions(model, image, 3)
    scene = segmentation._Scene.of(model, image, None, None, None, None)
    sampled = scene.columns(scene.sample())
    shift, scale = scene.standard(sampled)
    centres = segmentation._centres((sampled - shift) * scale, 3)
    stack = st.hypercolumns(model, image, interpolation="bilinear").values
    gaps = (((stack - shift) * scale)[..., np.newaxis, :] - centres) ** 2
    nearest = gaps.sum(-1).argmin(-1)
    for k in range(3):
        assert len(np.unique(numbers[nearest == k])) == 1


@pytest.mark.parametrize(
    ("inside", "outside", "says"),
    [
        ([], [[1, 1]], "inside has float64|inside has no pixels"),
        ([[1, 1]], np.zeros((0, 2), int), "outside has no pixels"),
        ([[1, 1]], [[30, 0]], "outside has the pixel of row 30"),
    ],
)
def test_bad_points_are_said(inside, outside, says):
    image = np.zeros((20, 20, 3), np.float32)
    with pytest.raises(ValueError, match=says):
        segment(small(), image, inside, outside)


def test_bad_numbers_of_regions_are_said():
    with pytest.raises(ValueError, match="regions is 1, expected 2 to 256"):
        regions(small(), np.zeros((20, 20, 3), np.float32), 1)


def test_an_image_of_fewer_kinds_of_pixels_than_regions_is_refused():
    with pytest.raises(
        ValueError, match=r"regions is 5, more than the image has different pixels: \d"
    ):
        regions(small(), np.ones((2, 2, 3), np.float32), 5)


def test_a_pixel_is_inside_or_outside():
    image = np.zeros((20, 20, 3), np.float32)
    with pytest.raises(ValueError, match="row 2 and column 3 is given as inside and as outside"):
        segment(small(), image, [[1, 1], [2, 3]], [[2, 3], [4, 4]])


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setattr("striate.extras.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"pip install 'striate\[segment\]'"):
        segment(small(), np.zeros((20, 20, 3), np.float32), [[1, 1]], [[2, 2]])


def test_pictures_over_the_photo():
    photo = Image.fromarray(np.full((50, 80, 3), (200, 100, 50), np.uint8))
    mask = np.zeros((50, 80), bool)
    mask[10:30, 20:60] = True
    shown = np.asarray(cut_out(photo, mask, np.array([[20, 40]]), np.array([[45, 5]])))
    assert shown[12, 23].tolist() == [200, 100, 50]
    assert len(set(shown[40, 70].tolist())) == 1
    assert shown[10, 40].tolist() == [255, 255, 255]
    assert shown[20, 40].tolist() != shown[45, 5].tolist() != [200, 100, 50]
    numbers = mask.astype(np.int64)
    shown = np.asarray(coloured(photo, numbers))
    assert shown[20, 40].tolist() != shown[40, 70].tolist()
    assert len(set(palette(24))) == 24


# The command line


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def photo(tmp_path):
    """Left half noise, right half plain: 60 wide, 40 high."""
    values = np.random.default_rng(7).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    values[:, 30:] = (30, 90, 160)
    path = tmp_path / "photo.png"
    Image.fromarray(values).save(path)
    return path


def test_the_command_cuts_out_by_columns_and_rows(photo, tmp_path):
    mask = tmp_path / "mask.png"
    shown = ["--inside", "50,10", "--inside", "55,35", "--outside", "5,30", "--outside", "12,8"]
    result = run("segment", photo, *shown, "-o", mask, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    found = picture(mask)
    assert (found.shape, set(np.unique(found).tolist())) == ((40, 60), {0, 255})
    assert found[10, 50] == 255
    assert found[30, 5] == 0
    assert told["inside"] == pytest.approx((found > 0).mean(), abs=1e-5)
    assert picture(told["overlay"]).shape == (40, 60, 3)
    # X is the column: 50 is no row of this photo.
    image = Image.fromarray(picture(photo))
    points = [[10, 50], [35, 55]], [[30, 5], [8, 12]]
    assert np.array_equal(segment(network(), image, *points).mask, found > 0)
    plain = run("segment", photo, *shown, "-o", mask)
    assert f"{mask}: " in plain.stdout
    assert list(tmp_path.glob(".*")) == []


def test_the_command_finds_regions(photo, tmp_path):
    mask, overlay = tmp_path / "r.png", tmp_path / "o.png"
    result = run("segment", photo, "--regions", 3, "-o", mask, "--overlay", overlay, "--json")
    assert result.exit_code == 0, result.output
    shares = json.loads(result.stdout)["regions"]
    numbers = picture(mask)
    assert numbers.shape == (40, 60)
    assert np.bincount(numbers.ravel(), minlength=3) / numbers.size == pytest.approx(
        shares, abs=1e-5
    )
    assert overlay.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--inside", "1,1"], "one --outside"),
        ([], "give --inside and --outside, or --regions"),
        (["--inside", "1,1", "--outside", "2,2", "--regions", "3"], "or --regions"),
        (["--inside", "1;1", "--outside", "2,2"], "--inside is '1;1', expected X,Y"),
        (["--inside", "1,45", "--outside", "2,2"], "--inside 1,45 lies outside the photo, which"),
        (["--inside", "1,1", "--outside", "60,2"], "60 pixels wide and 40 high"),
        (["--regions", "3", "--overlay", "x.jpg"], "--overlay is x.jpg, expected a name"),
        (["--regions", "3", "--overlay", "none/x.png"], "there is no folder none"),
        (["--inside", "1,1", "--outside", "1,1"], "is given as inside and as outside"),
    ],
)
def test_the_command_says_what_is_wrong(photo, tmp_path, arguments, says):
    result = run("segment", photo, *arguments, "-o", tmp_path / "m.png")
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "m.png").exists()


def test_the_overlay_is_another_file(photo, tmp_path):
    mask = tmp_path / "m.png"
    result = run("segment", photo, "--regions", 3, "-o", mask, "--overlay", mask)
    assert result.exit_code == 2
    assert "which is the mask's file" in result.stderr


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "-1,2", "a,2", "1.5,2", "²,1", "99999999,1"])
def test_bad_pixels_are_named(text):
    with pytest.raises(ValueError, match=r"--at is .*expected X,Y"):
        parse_pixels([text], "--at")


def test_the_command_writes_hypercolumns(photo, tmp_path):
    output = tmp_path / "columns.npz"
    options = ["--layers", "stride4, _blocks.3", "--at", "50,10", "--at", "3,39"]
    result = run("hypercolumns", photo, "-o", output, *options, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    with np.load(output) as file:
        arrays = dict(file)
    pixels = pixels_of(str(photo), preset_of(network()))
    expected = st.hypercolumns(network(), pixels, ["stride4", "_blocks.3"], [[10, 50], [39, 3]])
    assert np.array_equal(arrays["values"], expected.values)
    assert arrays["layers"].tolist() == ["stride4", "_blocks.3"]
    assert arrays["slices"].tolist() == [[0, 24], [24, 64]]
    assert arrays["strides"].tolist() == [[4, 4], [8, 8]]
    assert (arrays["columns"].tolist(), arrays["rows"].tolist()) == ([50, 3], [10, 39])
    assert told["shape"] == [2, 64]
    assert [layer["columns"] for layer in told["layers"]] == [[0, 24], [24, 64]]


def test_the_command_writes_all_hypercolumns(photo, tmp_path):
    output = tmp_path / "columns.npz"
    size = ("--longest", 30, "--every", 1, "--interpolation", "bilinear")
    result = run("hypercolumns", photo, "-o", output, *size)
    assert result.exit_code == 0, result.output
    assert "20 x 30 x 1472" in result.stdout
    with np.load(output) as file:
        assert file["values"].shape == (20, 30, 1472)
        assert file["rows"].tolist() == list(range(0, 40, 2))
        assert file["columns"].tolist() == list(range(0, 60, 2))


def test_by_default_the_hypercolumns_of_a_grid_are_written(photo, tmp_path):
    with photo.open("rb") as file:
        result = CliRunner().invoke(
            app, ["hypercolumns", "-", "-o", str(tmp_path / "grid.npz")], input=file.read()
        )
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "grid.npz") as file:
        arrays = dict(file)
    assert arrays["values"].shape == (10, 15, 1472)
    assert (arrays["rows"][3], arrays["columns"][14]) == (12, 56)
    pixels = pixels_of(str(photo), preset_of(network()))
    expected = st.hypercolumns(network(), pixels, at=[[12, 56]])
    assert np.array_equal(arrays["values"][3, 14], expected.values[0])


def test_pixels_of_a_smaller_photo_are_found_again_in_the_photo(photo, tmp_path):
    """A pixel that is written as its grid's is asked for by name, and is the same."""
    for output, options in (("a.npz", ["--every", 5]), ("b.npz", ["--at", "17,24"])):
        size = ("--longest", 37, "--layers", "stride4", "-o", tmp_path / output)
        assert run("hypercolumns", photo, *size, *options).exit_code == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert (a["rows"].tolist(), a["columns"].tolist()[:3]) == ([0, 8, 16, 24, 32], [0, 9, 17])
        assert np.array_equal(a["values"][3, 2], b["values"][0])


def test_too_many_hypercolumns_are_refused_in_words_of_the_command_line(
    photo, tmp_path, monkeypatch
):
    monkeypatch.setattr("striate.vision.hypercolumns.LARGEST", 1000)
    result = run("hypercolumns", photo, "-o", tmp_path / "x.npz")
    assert result.exit_code == 2
    for words in ("of 150 pixels take 883 kB", "--every", "--layers", "--longest", "--at X,Y"):
        assert words in result.stderr
    assert "out=" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "x.npy"], "expected a name that ends in .npz"),
        (["-o", "x.npz", "--layers", "layer1"], "no feature called 'layer1'"),
        (["-o", "x.npz", "--at", "60,0"], "--at 60,0 lies outside the photo"),
        (["-o", "/nonexistent/x.npz", "--at", "1,1"], "there is no folder /nonexistent"),
        (["-o", "x.npz", "--at", "1,1", "--every", "2"], "choose one of --at and --every"),
        (["-o", "x.npz", "--layers", "stride4,"], "--layers is 'stride4,', expected names"),
    ],
)
def test_hypercolumns_say_what_is_wrong(photo, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("hypercolumns", photo, *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
