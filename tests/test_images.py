"""Photos of every usual kind, their presets, folders, and the names of classes."""

import hashlib
import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.images import (
    ImageError,
    Preset,
    UnknownClassError,
    class_names,
    find_class,
    find_images,
    load,
    preset_for,
)

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
SHARED = Path(__file__).parents[2] / "shared"


def noise(width: int, height: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, bands) if bands > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: object, **options: bool) -> np.ndarray:
    image = load(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


# Kinds of images.


def test_sources(tmp_path):
    values = noise(5, 4)
    data = encoded(Image.fromarray(values), "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file]
        for source in sources:
            np.testing.assert_array_equal(pixels(source), values)
            source.seek(0) if hasattr(source, "seek") else None
            np.testing.assert_array_equal(pixels(source, exif=False), values)
    np.testing.assert_array_equal(pixels(Image.fromarray(values)), values)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe(tmp_path):
    values = noise(5, 4)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = encoded(Image.fromarray(values), "PNG")
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    np.testing.assert_array_equal(pixels(pipe), values)
    writer.join()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "GIF", "QOI", "PCX"])
def test_lossless_formats(kind):
    values = noise(8, 6) // 64 * 64
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(values)
    if kind == "GIF":
        image = image.quantize(64)
        values = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(encoded(image, kind, **options)), values)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats(kind):
    gradient = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) * 3
    image = Image.fromarray(np.dstack([gradient] * 3))
    difference = pixels(encoded(image, kind)).astype(int) - np.asarray(image)
    assert np.abs(difference).max() < 24


def test_grey():
    values = noise(5, 4, 1)
    found = pixels(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(found, np.dstack([values] * 3))


def test_black_and_white():
    values = noise(9, 4, 1) > 127
    found = pixels(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(found[..., 1], values * 255)


@pytest.mark.parametrize("bands", [2, 4])
def test_transparency_is_dropped_not_blended(bands):
    values = noise(5, 4, bands)
    found = pixels(encoded(Image.fromarray(values), "PNG"))
    expected = values[..., :3] if bands == 4 else np.dstack([values[..., 0]] * 3)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(16))])
def test_palettes(transparency):
    image = Image.fromarray(noise(9, 7)).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", **options)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind):
    values = np.array([[0, 1, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
    found = pixels(encoded(Image.fromarray(values), kind))
    expected = np.rint(values / 257.0)
    np.testing.assert_array_equal(found, np.dstack([expected] * 3))


def test_wide_and_floating_greys():
    wide = np.array([[0, 257, 65535]], np.int32)
    np.testing.assert_array_equal(pixels(Image.fromarray(wide))[0, :, 0], [0, 1, 255])
    floating = np.array([[0.0, 0.5, 1.0]], np.float32)
    found = pixels(encoded(Image.fromarray(floating), "TIFF"))
    np.testing.assert_array_equal(found[0, :, 0], [0, 128, 255])


def test_cmyk():
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    found = pixels(encoded(image, "JPEG", quality=95)).reshape(-1, 3).mean(0)
    assert found[0] > 240
    assert found[1:].max() < 15


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind):
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    found = pixels(encoded(red, kind, save_all=True, append_images=[blue]))
    assert found[..., 0].min() > 240
    assert found[..., 2].max() < 15


ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", ORIENTED)
def test_orientation(orientation):
    values = noise(6, 4)
    notes = Image.Exif()
    notes[0x0112] = orientation
    data = encoded(Image.fromarray(values), "PNG", exif=notes)
    np.testing.assert_array_equal(pixels(data), ORIENTED[orientation](values))
    np.testing.assert_array_equal(pixels(data, exif=False), values)


@pytest.mark.parametrize(
    "notes", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish", b"Exif\0\0"]
)
def test_a_damaged_orientation_is_passed_over(notes):
    values = noise(6, 4)
    data = encoded(Image.fromarray(values), "PNG", exif=notes)
    np.testing.assert_array_equal(pixels(data), values)


def test_the_given_image_stays_as_it_is():
    notes = Image.Exif()
    notes[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(Image.fromarray(noise(6, 4)), "PNG", exif=notes)))
    assert load(image).size == (4, 6)
    assert image.size == (6, 4)


def test_one_pixel():
    image = load(encoded(Image.new("RGB", (1, 1), (255, 0, 0)), "PNG"))
    found = Preset(mean=(0, 0, 0), std=(1, 1, 1))(image)
    np.testing.assert_array_equal(found, np.broadcast_to(np.float32([1, 0, 0]), (224, 224, 3)))


# Presets.

# The first 16 digits of the SHA-256 of what torchvision 0.29.2 makes of the photos, as
# float32[x, y, i]: `ImageClassification(...)(Image.open(photo).convert("RGB")).permute(1, 2, 0)`.
TORCHVISION = {
    ("chelsea.png", Preset()): "841a9030ad513b66",
    ("chelsea.png", Preset(resize=232)): "ea8076857a8f05a2",
    ("chelsea.png", Preset(101)): "0c6ec92dcc74a3c3",
    ("chelsea.png", Preset(256, 223)): "81fff3f050729949",
    ("coffee.png", preset_for("inception_v3")): "eb71f53a82208195",
    ("coffee.png", preset_for("efficientnet_lite0")): "50fdc92c8a28b5d1",
    ("camera.png", Preset()): "56dc6e792764616e",
}


@pytest.mark.parametrize(("photo", "preset"), TORCHVISION)
def test_presets_equal_torchvision_to_the_bit(photo, preset):
    found = preset(load(PHOTOS / photo, exif=False))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == TORCHVISION[photo, preset]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_frames_follow_the_rule(width, height, resize, crop, interpolation):
    """The rule in words of arrays: resize, pad to at least the crop, cut with Python's rounding."""
    image = Image.fromarray(noise(width, height))
    short, long = min(width, height), max(width, height)
    other = int(resize * long / short)
    size = (resize, other) if width <= height else (other, resize)
    pad = [((max(crop - n, 0)) // 2, (max(crop - n, 0) + 1) // 2) for n in size[::-1]]
    method = getattr(Image.Resampling, interpolation.upper())
    whole = np.pad(np.asarray(image.resize(size, method)), (*pad, (0, 0)))
    top, left = (round((n - crop) / 2.0) for n in whole.shape[:2])
    frame = Preset(resize, crop, interpolation=interpolation).frame(image)
    np.testing.assert_array_equal(np.asarray(frame), whole[top : top + crop, left : left + crop])


@pytest.mark.parametrize(
    ("size", "padding", "first"),
    [(257, 0, 16), (259, 0, 18), (256, 0, 16), (221, 1, 0), (100, 62, 0)],
)
def test_the_middle_rounds_to_even(size, padding, first):
    """16.5 becomes 16 and 17.5 becomes 18; what is missing is padded, the odd pixel behind."""
    columns = (np.arange(size) % 255 + 1).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (size, size, 3)).copy())
    row = np.asarray(Preset(size, 224).frame(image))[112, :, 0]
    assert not row[:padding].any()
    assert row[padding] == first + 1


def test_rows_come_first():
    image = Image.new("RGB", (224, 224))
    image.putpixel((3, 200), (255, 255, 255))
    found = Preset(224, 224, (0, 0, 0), (1, 1, 1))(image)
    assert np.argwhere(found[..., 0]).tolist() == [[200, 3]]


def test_each_step_rounds_to_float32():
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    preset = Preset(16, 16)
    value = np.arange(256, dtype=np.float32).reshape(16, 16, 1) / np.float32(255)
    expected = (value - np.float32(preset.mean)) / np.float32(preset.std)
    np.testing.assert_array_equal(preset(image), expected, strict=True)


def test_a_preset_belongs_to_the_weights():
    assert preset_for("resnet50") == preset_for("resnet50", "resnet50-0676ba61.pth") == Preset()
    assert preset_for("resnet50", Path("/x/resnet50-11ad3fa6.pth")) == Preset(resize=232)
    assert preset_for("resnet50", "mine.safetensors") == Preset()
    assert preset_for("inception_v3") == Preset(resize=342, crop=299)
    assert preset_for("mnasnet1_3").resize == 232
    assert preset_for("alexnet_2012") == Preset(crop=227)
    assert preset_for("resnet50", crop=448) == Preset(resize=512, crop=448)
    lite = preset_for("efficientnet_lite0")
    assert (lite.mean, lite.std, lite.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    with pytest.raises(ValueError, match="there is no network 'resnet51'"):
        preset_for("resnet51")


def test_normalizing_takes_about_a_millisecond():
    frame = Preset().frame(Image.fromarray(noise(300, 260)))
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        Preset().normalize(frame)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2e-3


# Folders.


def test_folders_are_searched_in_the_order_people_count(tmp_path):
    names = ["10.jpg", "2.PNG", "a/b/1.webp", "a/3.jpg", "note.txt", ".hidden.jpg", ".git/x.jpg"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["2.PNG", "10.jpg", "a/3.jpg", "a/b/1.webp"]


def test_named_files_keep_their_order_and_come_once(tmp_path):
    for name in ("b.dat", "a.jpg"):
        (tmp_path / name).touch()
    names = [str(tmp_path / "b.dat"), str(tmp_path), str(tmp_path / "a.jpg")]
    assert [path.name for path in find_images(names)] == ["b.dat", "a.jpg"]
    assert find_images([]) == []


def test_linked_folders_are_searched(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.jpg").touch()
    here = tmp_path / "here"
    here.mkdir()
    (here / "link").symlink_to(elsewhere, target_is_directory=True)
    assert find_images([here]) == [here / "link" / "a.jpg"]


def test_a_folder_that_links_to_itself(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert find_images([tmp_path]) == [tmp_path / "a.jpg"]


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "kitten.jpg").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ImageError, match=r"kiten\.jpg: no such file .* did you mean .*kitten\.jpg\?"
    ):
        find_images([tmp_path / "kiten.jpg"])
    with pytest.raises(ImageError, match="empty: there are no images in this folder"):
        find_images([tmp_path / "empty"])
    with pytest.raises(ImageError, match=r"x\.jpg: no such file or folder$"):
        find_images([tmp_path / "nowhere" / "x.jpg"])


# Classes.


def test_class_names():
    names = class_names()
    assert [one.index for one in names] == list(range(1000))
    synsets = [one.synset for one in names]
    assert synsets == sorted(set(synsets))
    assert names[285].name == "Egyptian cat"
    assert names[387].synonyms[0] == names[387].name == "lesser panda"
    assert class_names() is names


@pytest.mark.parametrize("query", [967, "967", "espresso", " Espresso ", "n07920052"])
def test_find_class(query):
    assert find_class(query).index == 967


def test_find_class_by_a_synonym():
    assert find_class("Carcharodon carcharias").index == 2


def test_names_go_before_synonyms_and_case_tells_apart():
    assert find_class("crane").index == 517
    assert find_class("crane bird").index == 134
    assert find_class("Cardigan").index == 264
    assert find_class("cardigan").index == 474


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (1000, "there is no class 1000; they are 0 to 999"),
        ("-1", "there is no class -1"),
        ("expresso", "no class 'expresso'; did you mean 'espresso'"),
        ("qqqqqq", "no class 'qqqqqq'$"),
        (
            "panda",
            r"'panda' is the name of classes 387 \(lesser panda, .*\) and 388 \(giant panda, ",
        ),
        ("CARDIGAN", r"'CARDIGAN' is the name of classes 264 .* and 474 "),
        ("", "no class ''"),
    ],
)
def test_classes_that_are_not_there(query, words):
    with pytest.raises(UnknownClassError, match=words):
        find_class(query)


# The photos that come along.


def test_the_photos_have_credits():
    credits = (PHOTOS / "CREDITS.md").read_text(encoding="utf-8")
    photos = find_images([PHOTOS])
    assert len(photos) == 5
    for photo in photos:
        assert f"`{photo.name}`" in credits
        assert photo.stat().st_size < 600_000
        assert load(photo).size == load(photo, exif=False).size


@pytest.mark.skipif(not (SHARED / "photos").is_dir(), reason="needs the golden files")
def test_the_photos_are_the_golden_ones():
    for photo in find_images([PHOTOS]):
        assert photo.read_bytes() == (SHARED / "photos" / photo.name).read_bytes()
