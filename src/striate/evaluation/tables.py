"""Lists of images and their classes: tables with commas or tabs, and plain lines."""

import csv
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from striate.images.folders import SUFFIXES

_PATHS = frozenset(["path", "file", "filename", "file_name", "image", "imageid", "image_id"])
_LABELS = frozenset(["label", "class", "class_id", "target", "synset", "wnid", "predictionstring"])
_SYNSET = re.compile(r"n\d{8}\b")
# For images that are listed without their kind, as Kaggle lists ImageNet's.
_KINDS = (".JPEG", ".jpg", ".jpeg", ".png")


class DataError(ValueError):
    """Data for an evaluation that cannot be used: which, what was expected, and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image file, the class it is said to show, and where that is said."""

    path: Path
    label: str
    place: str


def read_text(path: Path) -> str:
    """The text of a list. Raises OSError, DataError."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: it is not text in UTF-8; expected lines of path, label"
        ) from error


def read_table(path: Path, folder: Path) -> list[Row]:
    """The rows of the list `path`, whose relative paths begin in `folder`.

    Columns are divided by tabs, commas or semicolons, as in the first line; where there are none,
    the label is the last word of a line. The first line may name the columns (path, label), as in
    Kaggle's `LOC_val_solution.csv`. Raises OSError, DataError with the line.
    """
    lines = _cells(path)
    if not lines:
        raise DataError(f"{path}: it is empty, expected lines of path, label")
    columns = _header(lines[0][1])
    if columns is None and len(lines[0][1]) > 2:
        raise DataError(
            f"{path}: it has {len(lines[0][1])} columns; name them in its first line, "
            f"two of them path and label"
        )
    rows = []
    for number, cells in lines[columns is not None :]:
        image, label = columns or (0, 1)
        place = f"{path}, line {number}"
        if len(cells) <= max(image, label) or not cells[image] or not cells[label]:
            raise DataError(f"{place}: expected a path and a label, got {' '.join(cells)!r}")
        # Kaggle's column holds boxes as well: the synset, four numbers, and so on.
        synset = _SYNSET.match(cells[label])
        text = synset.group() if synset else cells[label]
        rows.append(Row(_file(folder / cells[image]), text, place))
    if not rows:
        raise DataError(f"{path}: it names columns and no images")
    return rows


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of every line that is not empty, with its number."""
    text = read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((one for one in "\t,;" if one in first), None)
    if delimiter is None:
        found = [(number, line.rsplit(None, 1)) for number, line in enumerate(text.splitlines(), 1)]
    else:
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
        try:
            found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    return [(number, cells) for number, cells in found if any(cells)]


def _header(cells: list[str]) -> tuple[int, int] | None:
    """The columns of path and label where `cells` name them."""
    names = [cell.casefold() for cell in cells]
    paths = [place for place, name in enumerate(names) if name in _PATHS]
    labels = [place for place, name in enumerate(names) if name in _LABELS]
    return (paths[0], labels[0]) if paths and labels else None


def _file(path: Path) -> Path:
    """`path`, or the image file that it names without its kind."""
    if path.suffix.lower() in SUFFIXES or path.is_file():
        return path
    there = (path.with_name(path.name + kind) for kind in _KINDS)
    return next((one for one in there if one.is_file()), path)
