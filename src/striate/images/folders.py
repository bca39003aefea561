"""Finding the images that a person names."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from striate.images.errors import ImageError

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp"),
        *(".dib", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm"),
        *(".pbm", ".pnm", ".tga", ".qoi", ".pcx", ".ico", ".psd"),
    )
)


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files named, and the images in the folders named and below them, each once.

    What is named stays in its order; a folder's images come in the order people count (2 before
    10). Hidden files are left out. Raises ImageError for a name that leads nowhere and for a
    folder without images.
    """
    found: dict[Path, None] = {}
    for name in paths:
        path = Path(name)
        if path.is_dir():
            below = images_below(path)
            if not below:
                raise ImageError(f"{path}: there are no images in this folder or below it")
            found.update(dict.fromkeys(below))
        elif path.exists():
            found[path] = None
        else:
            raise ImageError(f"{path}: no such file or folder{_hint(path)}")
    return list(found)


def images_below(folder: Path) -> list[Path]:
    """The images in `folder` and in the folders below it, in the order people count.

    Raises ImageError for a folder that cannot be read.
    """
    images: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        images += [Path(place, name) for name in files if _is_image(name)]
    return sorted(images, key=lambda path: [_natural(part) for part in path.parts])


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _refuse(error: OSError) -> None:
    raise ImageError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error


def _natural(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A key that sorts numbers inside names by value, before letters of any case."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", text)
    keys = [
        (False, int(p), "") if p[0] in "0123456789" else (True, 0, p.casefold()) for p in pieces
    ]
    return keys, text


def _hint(path: Path) -> str:
    """What was perhaps meant by a name that leads nowhere."""
    from difflib import get_close_matches

    try:
        beside = [entry.name for entry in os.scandir(path.parent)]
    except OSError:
        return ""
    close = get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""
