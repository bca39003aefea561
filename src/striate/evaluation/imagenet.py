"""ImageNet's validation images as they are unpacked: one folder, and their classes in a file.

The devkit's ground truth numbers the classes 1 to 1000 in an order of its own, which is not that of
the sorted synsets in which networks number them; a second file of the devkit says which is which.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from striate.evaluation.tables import DataError, Row, read_text
from striate.images import class_names

_IMAGE = re.compile(r"ILSVRC20\d\d_val_(\d{8})\.\w+")
_SYNSET = re.compile(r"n\d{8}")
# Beside the images or one folder up, and in the devkit's own folder there.
_TRUTHS = (
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2015_clsloc_validation_ground_truth.txt",
    "LOC_val_solution.csv",
    "val.txt",
)
_FOLDERS = (".", "ILSVRC2012_devkit_t12/data", "data", "devkit/data")
_MAPPINGS = ("map_clsloc.txt", "meta.mat", "meta_clsloc.mat")


def find_truth(folder: Path, images: Sequence[Path]) -> Path | None:
    """The file with the classes of ImageNet's validation `images` in `folder`, if it is near."""
    if not any(map(number_of, images)):
        return None
    places = (base / sub for base in (folder, folder.resolve().parent) for sub in _FOLDERS)
    files = (place / name for place in places for name in _TRUTHS)
    return next((file for file in files if file.is_file()), None)


def number_of(image: Path) -> int:
    """The number in the name of one of ImageNet's validation images, from 1; 0 for another name."""
    match = _IMAGE.fullmatch(image.name)
    return int(match.group(1)) if match else 0


def is_ground_truth(path: Path) -> bool:
    """Whether the first lines are one number or one synset each: line k belongs to image k."""
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace")
    lines = [line.strip() for line in head.splitlines()[:100] if line.strip()]
    return bool(lines) and all(re.fullmatch(r"\d+|n\d{8}", line) for line in lines)


def ground_truth(path: Path, images: Sequence[Path], synsets: Path | None) -> list[Row]:
    """`images` with their classes by the lines of `path`; `synsets` says the devkit's order.

    Without it a file of the devkit beside `path` does. Raises OSError, DataError.
    """
    lines = read_text(path).split()
    if not _SYNSET.fullmatch(lines[0]):
        names = _devkit_order(_mapping_beside(path) if synsets is None else synsets)
        wrong = next((k for k, line in enumerate(lines) if not _is_id(line)), None)
        if wrong is not None:
            raise DataError(
                f"{path}, line {wrong + 1}: expected a class from 1 to 1000, got {lines[wrong]!r}"
            )
        lines = [names[int(line) - 1] for line in lines]
    rows = []
    for image in images:
        number = number_of(image)
        if not 1 <= number <= len(lines):
            raise DataError(
                f"{image}: {path} has a line for each of the images ILSVRC2012_val_00000001 to "
                f"{len(lines):08}; this is none of them. For other images give lines of path, label"
            )
        rows.append(Row(image, lines[number - 1], f"{path}, line {number}"))
    return rows


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text) <= 1000


def _mapping_beside(truth: Path) -> Path:
    for name in _MAPPINGS:
        if (truth.parent / name).is_file():
            return truth.parent / name
    raise DataError(
        f"{truth} numbers the classes in the devkit's own order; give --synsets FILE with that "
        f"order: the devkit's {' or '.join(_MAPPINGS)}, or 1000 lines of synsets"
    )


def _devkit_order(path: Path) -> list[str]:
    """The synsets of the devkit's classes 1 to 1000. Raises OSError, DataError."""
    known = sorted(one.synset for one in class_names())
    if path.suffix == ".mat":
        found = list(dict.fromkeys(_synsets_in_mat(path)))[:1000]
    else:
        found = _synsets_in_text(path)
    if sorted(found) != known:
        raise DataError(
            f"{path}: expected the synsets of ImageNet's 1000 classes, each once; "
            f"{len(set(found) & set(known))} of them are there"
        )
    if found == known:
        raise DataError(
            f"{path}: its synsets are sorted; expected the devkit's order, which is another"
        )
    return found


def _synsets_in_text(path: Path) -> list[str]:
    """The synset of each line, by the class's number where the line has one after it."""
    found = []
    for place, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if not _SYNSET.fullmatch(words[0]):
            raise DataError(f"{path}, line {place}: expected a synset such as n02119789")
        numbered = len(words) > 1 and words[1].isdecimal()
        found.append((int(words[1]) if numbered else place, words[0]))
    return [synset for _, synset in sorted(found)]


def _synsets_in_mat(path: Path) -> Iterator[str]:
    """The synsets in the order of a MATLAB file, whose text is stored by bytes or by words.

    The devkit's table stands in the order of its numbers, the 1000 classes first.
    """
    data = path.read_bytes()
    place = 128
    while place + 8 <= len(data):
        kind, size = (int.from_bytes(data[k : k + 4], "little") for k in (place, place + 4))
        body = data[place + 8 : place + 8 + size]
        try:
            content = zlib.decompress(body) if kind == 15 else body
        except zlib.error as error:
            raise DataError(f"{path}: it is damaged ({error})") from error
        for match in re.finditer(rb"n\d{8}", content.replace(b"\0", b"")):
            yield match.group().decode()
        place += 8 + size
