"""Images of every usual kind as 8-bit RGB."""

import io
import os
import stat
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from striate.images.errors import ImageError

Encoded = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
Source = Encoded | Image.Image

# Formats by Pillow's names: those read without further imports, then all others that hold photos.
# Left out are those that start other programs (EPS) or only describe data (GRIB, HDF5).
_COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
_OTHERS = (
    *("WEBP", "TIFF", "AVIF", "JPEG2000", "MPO", "HEIF", "ICO", "ICNS", "TGA", "QOI", "PCX"),
    *("DIB", "SGI", "PSD", "DDS", "IM", "SUN", "XBM", "XPM", "MSP"),
)

# Files that people hand over for photos, by their bytes at an offset.
_STRANGERS = (
    (4, b"ftyphei", "it is a HEIC photo; 'pip install pillow-heif' or convert it to JPEG"),
    (4, b"ftypmif1", "it is a HEIF photo; 'pip install pillow-heif' or convert it to JPEG"),
    (4, b"ftyp", "it is a video; save one frame as an image"),
    (0, b"\x1aE\xdf\xa3", "it is a video; save one frame as an image"),
    (0, b"%PDF", "it is a PDF; save its page as an image"),
    (0, b"%!PS", "it is PostScript; save it as an image"),
    (0, b"PK\x03\x04", "it is a zip archive; unpack it first"),
    (0, b"version https://git-lfs", "it is a Git LFS pointer; run 'git lfs pull'"),
)

# More bytes than any photo has; for pipes, which do not tell their length.
_MOST_BYTES = 1 << 29
# Resizing to a short side of 256 makes an image of this shape 256 x 256000.
_MOST_SLENDER = 1000


def load(source: Source, *, exif: bool = True) -> Image.Image:
    """The image in a file, in bytes or in a file object as 8-bit RGB; the first of several frames.

    With `exif` the orientation that a camera noted is applied, as people see the photo; without it
    the pixels stay as they are stored, as published accuracies were measured. Transparency is
    dropped as `convert("RGB")` does: the colours under it show, whatever they are. 16-bit samples
    are scaled to 8 bits, palettes, greys and CMYK converted. Raises ImageError, which names the
    image and what is wrong with it.
    """
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, exif)
        with _stream(source) as stream, _open(stream) as image:
            return _to_rgb(image, exif)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: it is a folder, expected an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(
            f"{name}: it claims too many pixels ({error}); shrink it below {most} pixels"
        ) from error
    except MemoryError:
        raise ImageError(f"{name}: it does not fit into memory; shrink it") from None
    except Exception as error:
        # Decoders of broken files fail in many ways (struct, zlib, index, type errors, ...).
        raise ImageError(f"{name}: cannot be read: {_reason(error)}") from error


def reduced(image: Image.Image, longest: int | None) -> Image.Image:
    """The image, made smaller if its longer side has more than `longest` pixels."""
    if longest is None or max(image.size) <= longest:
        return image
    width, height = (max(1, round(n * longest / max(image.size))) for n in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip() or type(error).__name__
    if "truncated" in text.lower():
        return f"the file is cut off ({text})"
    return f"the image is damaged ({text})"


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source) or "''"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"image of {len(source)} bytes"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return name if isinstance(name, str) and name else "image"


def _stream(source: Encoded) -> IO[bytes]:
    """The bytes of `source` as a file that can be read again from its start."""
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise ImageError("an empty name names no image")
        file = Path(source).open("rb")  # noqa: SIM115
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file
        with file:
            return io.BytesIO(_all(file))
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not hasattr(source, "read"):
        raise ImageError(
            f"expected a path, bytes, a file or a Pillow image, got {type(source).__name__}"
        )
    return io.BytesIO(_all(source))


def _all(file: IO[bytes]) -> bytes:
    data = file.read(_MOST_BYTES + 1)
    if not isinstance(data, bytes):
        raise ImageError("the file gives text; open it in binary mode ('rb')")
    if len(data) > _MOST_BYTES:
        raise ImageError(f"it has more than {_MOST_BYTES} bytes")
    return data


def _open(stream: IO[bytes]) -> Image.Image:
    head = stream.read(1024)
    stream.seek(0)
    if not head:
        raise ImageError("the file is empty")
    try:
        return Image.open(stream, formats=_COMMON)
    except UnidentifiedImageError:
        pass
    Image.init()
    stream.seek(0)
    try:
        return Image.open(stream, formats=[name for name in _OTHERS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise ImageError(_stranger(head)) from None


def _stranger(head: bytes) -> str:
    for offset, start, words in _STRANGERS:
        if head[offset:].startswith(start):
            return words
    text = head.lstrip()
    if b"<svg" in text:
        return "it is an SVG drawing; save it as PNG"
    if text.startswith(b"<"):
        return "it is a web page, not an image"
    for start in (b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM"):
        if head.startswith(start):
            return "the image is damaged: its header cannot be understood"
    return f"it is not an image of a known format; it begins with {head[:8]!r}"


def _to_rgb(image: Image.Image, exif: bool) -> Image.Image:
    width, height = image.size
    if max(width, height) > _MOST_SLENDER * max(1, min(width, height)):
        raise ImageError(
            f"it is {width} x {height} pixels; "
            f"one side is more than {_MOST_SLENDER} times the other"
        )
    if width == 0 or height == 0:
        raise ImageError(f"it is {width} x {height} pixels; there is nothing to see")
    image.load()
    if exif:
        image = _upright(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep_grey(image).convert("RGB")
    if image.mode in ("P", "La", "RGBa"):
        # By way of alpha, because straight to RGB is missing or warns.
        image = image.convert({"P": "RGBA", "La": "LA", "RGBa": "RGBA"}[image.mode])
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; unturned where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit grey, or floats from 0 to 1, as 8-bit grey, rounded to the nearest."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    white = 1.0 if image.mode == "F" else 65535.0
    # Also false where a value is not a number.
    if not (low >= 0 and high <= white):
        raise ImageError(
            f"its grey values lie between {low} and {high}, where 0 to {white:g} were expected; "
            "scale them and save the image with 8 or 16 bits"
        )
    scaled = values.astype(np.float64) * (255.0 / white)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
