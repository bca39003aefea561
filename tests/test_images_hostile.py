"""Bad images: each ends in one clear ImageError that names it."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.images import ImageError, load

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def encoded(kind: str, image: Image.Image = NOISE, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half(kind: str) -> bytes:
    data = encoded(kind)
    return data[: len(data) // 2]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever it holds."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def wrong_checksum() -> bytes:
    data = bytearray(png(8, 8, bytes(8 * 25)))
    data[data.find(b"IHDR") + 20] ^= 0xFF
    return bytes(data)


def deep(values: list[list[float]], kind: type) -> bytes:
    return encoded("TIFF", Image.fromarray(np.array(values, kind)))


# name: (content, what the message says)
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "one byte": (b"\xff", "not an image of a known format"),
    "text": (b"this is a text, not a picture", "not an image of a known format; it begins with"),
    "zeros": (bytes(5000), "not an image of a known format"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "pdf": (b"%PDF-1.7\n" + bytes(50), "a PDF"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    "zip": (b"PK\x03\x04" + bytes(60), "a zip archive"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", "a HEIC photo; 'pip install pillow-heif'"),
    "video": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
    "matroska": (b"\x1aE\xdf\xa3" + bytes(60), "a video"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "header of a jpeg": (b"\xff\xd8\xff\xe0", "damaged: its header cannot be understood"),
    "header of a png": (b"\x89PNG\r\n\x1a\n", "damaged"),
    "header of a gif": (b"GIF89a", "damaged"),
    "half a jpeg": (half("JPEG"), "cut off .*truncated"),
    "half a png": (half("PNG"), "cut off .*truncated"),
    "half a gif": (half("GIF"), "cut off .*truncated"),
    "half a webp": (half("WEBP"), "cannot be read|damaged"),
    "half a bmp": (half("BMP"), "cut off .*truncated"),
    "half a tiff": (half("TIFF"), "damaged|cut off"),
    "half a jpeg 2000": (half("JPEG2000"), "cut off|damaged|cannot be read"),
    "png without pixels": (png(64, 64), "cut off|damaged"),
    "png with few pixels": (png(64, 64, bytes(100)), "cut off|damaged"),
    "wrong checksum": (wrong_checksum(), "damaged"),
    "no pixels at all": (png(0, 8), "damaged|nothing to see"),
    "decompression bomb": (png(30_000, 30_000), "too many pixels .*shrink it below"),
    "largest claim": (png(2**31 - 1, 2**31 - 1), "too many pixels|damaged"),
    "thread": (encoded("PNG", Image.new("RGB", (5000, 2))), "5000 x 2 pixels; one side is more"),
    "deep and out of range": (
        deep([[0, 70_000]], np.int32),
        "between 0 and 70000, where 0 to 65535",
    ),
    "deep and negative": (deep([[-5, 7]], np.int32), "between -5 and 7"),
    "floats out of range": (deep([[0, 255]], np.float32), "between 0.0 and 255.0, where 0 to 1 "),
    "floats that are none": (deep([[0, np.nan]], np.float32), "between nan and nan"),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:image file could not be ident")
def test_bad_image(tmp_path, content, words):
    path = tmp_path / "bad image.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=f"^image of {len(content)} bytes: "):
        load(content)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing.jpg", "no such file"),
        ("folder", "it is a folder, expected an image"),
        ("file.jpg/beyond.jpg", "Not a directory"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_places_that_are_no_images(tmp_path, place, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.jpg").touch()
    with pytest.raises(ImageError, match=words) as caught:
        load(tmp_path / place)
    assert str(caught.value).startswith(str(tmp_path / place))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_device_without_end(monkeypatch):
    monkeypatch.setattr("striate.images.loading._MOST_BYTES", 1 << 16)
    with pytest.raises(ImageError, match="/dev/zero: it has more than 65536 bytes"):
        load("/dev/zero")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded("PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match=r"secret.png: cannot be read: Permission denied"):
        load(path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (17, "image: expected a path, bytes, a file or a Pillow image, got int"),
        (None, "got NoneType"),
        (io.StringIO("text"), "open it in binary mode"),
        (Path("nul\0l"), "null byte"),
    ],
)
def test_sources_that_are_none(source, words):
    with pytest.raises(ImageError, match=words):
        load(source)


def test_the_error_counts_as_a_value_error():
    assert issubclass(ImageError, ValueError)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_end_in_the_one_error(kind, data):
    """Whatever byte is changed or cut away, the answer is an image or an ImageError."""
    content = bytearray(encoded(kind, NOISE.resize((9, 7))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        image = load(bytes(content))
    except ImageError:
        return
    assert image.mode == "RGB"
