"""What commands share that are given a photo, and pixels of it."""

import sys
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from striate.images.loading import Encoded

STDIN = "-"


def source(photo: str) -> "Encoded":
    """What a user calls `photo`, to be loaded: a file, or standard input."""
    return standard_input() if photo == STDIN else photo


def standard_input() -> BytesIO:
    """All of standard input as a file; ValueError where a person would have to type it."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("- reads an image from standard input; give it one: < FILE")
    stream = BytesIO(sys.stdin.buffer.read())
    stream.name = "standard input"
    return stream


def parse_pixels(texts: Sequence[str], option: str) -> "NDArray[np.int64]":
    """Places `[n, 2]`, row and column, of texts `X,Y`, column and row. Raises ValueError."""
    import numpy as np

    pixels = []
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 2 or not all(p.isascii() and p.isdecimal() and len(p) < 8 for p in parts):
            raise ValueError(f"{option} is {text!r}, expected X,Y, such as 120,80")
        pixels.append((int(parts[1]), int(parts[0])))
    return np.array(pixels, np.int64).reshape(-1, 2)


def check_within(pixels: "NDArray[np.int64]", photo: "Image", option: str) -> "NDArray[np.int64]":
    """`pixels` themselves; ValueError, in the order they were given, for one outside the photo."""
    width, height = photo.size
    for row, column in pixels.tolist():
        if not (row < height and column < width):
            raise ValueError(
                f"{option} {column},{row} lies outside the photo, which is {width} pixels wide and "
                f"{height} high (X is 0 to {width - 1}, Y is 0 to {height - 1})"
            )
    return pixels
