"""What commands share that are given pixels of a photo, and write pictures."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

METAVAR = "X,Y"
HELP = "X pixels from the left edge and Y from the top, as image viewers show; from 0 on."


def parse_pixels(texts: Sequence[str], option: str) -> "NDArray[np.int64]":
    """Pixels `[n, 2]`, row and column, of texts `X,Y`, column and row. Raises ValueError."""
    import numpy as np

    pixels = []
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 2 or not all(p.isascii() and p.isdecimal() and len(p) < 8 for p in parts):
            raise ValueError(f"{option} is {text!r}, expected X,Y in pixels, such as 120,80")
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


def check_suffix(path: Path, suffix: str, option: str = "--output") -> None:
    """Raises ValueError if `path` is not called as such a file is."""
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} is {path}, expected a name that ends in {suffix}")


def write_png(path: Path, picture: "Image") -> None:
    """The picture as a file that is there complete or not at all."""
    from striate.compiler.files import write_atomically

    content = io.BytesIO()
    picture.save(content, "PNG")
    write_atomically(path, [content.getbuffer()], durable=True)
