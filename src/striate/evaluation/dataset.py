"""Images and the classes they show, from folders, lists and ImageNet's own layout."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from striate.evaluation.imagenet import find_truth, ground_truth, is_ground_truth
from striate.evaluation.tables import DataError, Row, read_table
from striate.images import UnknownClassError, classes_called, find_class, images_below
from striate.vision.classification import Label, labels_for

Pathlike = str | os.PathLike[str]
Data = Pathlike | Iterable[tuple[Pathlike, int | str]]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file and the number of the class it shows."""

    path: Path
    label: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A file that was named before, perhaps by another name (a link), perhaps as another class."""

    path: Path
    first: Path
    contradicts: bool


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples, each file once, and the names of the classes by number.

    `unlabelled` are images beside the samples whose class nothing says. `digest` stands for the
    files (their places, sizes and times) and their classes.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[Label, ...]
    duplicates: tuple[Duplicate, ...]
    unlabelled: tuple[Path, ...]
    digest: str

    def subset(self, count: int | None) -> list[int]:
        """The places of `count` samples, the same ones everywhere; a smaller set is in a larger."""
        places = range(len(self.samples))
        if count is None or count >= len(places):
            return list(places)
        return sorted(sorted(places, key=lambda k: _lot(self.samples[k]))[:count])


def _lot(sample: Sample) -> tuple[bytes, str]:
    key = f"{sample.label} {sample.path.name}".encode(errors="surrogateescape")
    return hashlib.sha256(key).digest(), str(sample.path)


def read_dataset(
    data: Data,
    labels: Pathlike | None,
    synsets: Pathlike | None,
    known: Sequence[Label],
    classes: int,
) -> Dataset:
    """The images of `data` for a network of `classes` classes.

    `data` is a folder of class folders, a list (`tables.read_table`), pairs of path and class, or a
    folder of images with a list `labels`. Where the network has as many classes as are `known`
    (ImageNet's) they go by synset, name or number; others by their folders' or names' order, or by
    number. Raises ImageError, OSError, DataError.
    """
    folders: list[str] | None = None
    unlabelled: list[Path] = []
    if not isinstance(data, str | os.PathLike):
        name = "images"
        rows = [Row(Path(path), str(label), str(path)) for path, label in data]
    else:
        root = Path(data)
        name = str(root)
        if not root.exists():
            raise DataError(f"{root}: no such file or folder; expected images with their classes")
        if not root.is_dir():
            if labels is not None:
                raise DataError(f"{root} is a file; with --labels expected the images' folder")
            rows = read_table(root, root.parent)
        elif labels is not None or not _folders(root):
            rows = _rows_of_flat(root, labels, synsets)
            listed = {row.path for row in rows}
            unlabelled = [path for path in images_below(root) if path not in listed]
        else:
            folders = _folders(root)
            rows = _rows_of_folders(root, folders)
            unlabelled = [path for path in images_below(root) if path.parent == root]
    if not rows:
        raise DataError(f"{name}: there are no images in it or below it")
    numbers, names = _numbers(rows, folders, known, classes)
    samples, duplicates, digest = _each_once(rows, numbers)
    return Dataset(name, samples, names, duplicates, tuple(unlabelled), digest)


def _folders(root: Path) -> list[str]:
    """The folders in `root`, sorted as networks number their classes."""
    return sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."
    )


def _rows_of_folders(root: Path, folders: Sequence[str]) -> list[Row]:
    return [
        Row(path, name, f"the folder {root / name}")
        for name in folders
        for path in images_below(root / name)
    ]


def _rows_of_flat(root: Path, labels: Pathlike | None, synsets: Pathlike | None) -> list[Row]:
    """The images of a folder whose classes stand in a list."""
    images = images_below(root)
    path = find_truth(root, images) if labels is None else Path(labels)
    if path is None:
        raise DataError(
            f"{root}: there are no class folders in it; give --labels FILE with lines of path, "
            f"label (or ImageNet's ground truth)"
        )
    if is_ground_truth(path):
        return ground_truth(path, images, None if synsets is None else Path(synsets))
    return read_table(path, root)


def _numbers(
    rows: Sequence[Row], folders: Sequence[str] | None, known: Sequence[Label], classes: int
) -> tuple[Mapping[str, int], tuple[Label, ...]]:
    """The number of each label, and the names of all classes."""
    places = {name: name for name in folders or ()}
    for row in rows:
        places.setdefault(row.label, row.place)
    if classes == len(known):
        numbers, unknown = _among_known(places)
        if not unknown:
            return numbers, tuple(known)
        if numbers or len(places) != classes:
            raise DataError(_unknown_labels(places, unknown))
    if folders is None and all(label.isascii() and label.isdecimal() for label in places):
        for label, place in places.items():
            if int(label) >= classes:
                raise DataError(
                    f"{place}: there is no class {label}; the network has 0 to {classes - 1}"
                )
        return {label: int(label) for label in places}, tuple(labels_for(classes, known))
    ordered = sorted(places)
    if len(ordered) != classes:
        shown = ", ".join(map(repr, ordered[:5])) + (", ..." if len(ordered) > 5 else "")
        raise DataError(
            f"the network has {classes} classes, the data {len(ordered)} ({shown}); expected a "
            f"folder or name for each class (a folder may be empty), or numbers in a list"
        )
    return (
        {label: number for number, label in enumerate(ordered)},
        tuple(Label(label) for label in ordered),
    )


def _among_known(labels: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """The numbers of those labels that are ImageNet's, and the others."""
    numbers: dict[str, int] = {}
    unknown: list[str] = []
    for label in labels:
        found = classes_called(_words(label))
        if len(found) == 1:
            numbers[label] = found[0].index
        else:
            unknown.append(label)
    return numbers, unknown


def _words(label: str) -> str:
    """A label as a name is written: folders often have underscores for blanks."""
    return label.strip().replace("_", " ")


def _unknown_labels(places: Mapping[str, str], unknown: Sequence[str]) -> str:
    """What to say of labels that are not ImageNet's."""
    try:
        near = find_class(_words(unknown[0]))
        reason = f"there is no class {unknown[0]!r}; did you mean {near.name!r}?"
    except UnknownClassError as error:
        reason = str(error)
    others = f" ({len(unknown) - 1} more are unknown)" if len(unknown) > 1 else ""
    return (
        f"{places[unknown[0]]}: {reason}{others}; expected a synset, a name or a number of ImageNet"
    )


def _each_once(
    rows: Sequence[Row], numbers: Mapping[str, int]
) -> tuple[tuple[Sample, ...], tuple[Duplicate, ...], str]:
    """The rows whose file no earlier one has, the others, and a hash of it all."""
    firsts: dict[object, Sample] = {}
    duplicates = []
    digest = hashlib.sha256()
    for row in rows:
        sample = Sample(row.path, numbers[row.label])
        try:
            status = row.path.stat()
        except (OSError, ValueError):  # it is named when it is read
            key: object = row.path
            state = ""
        else:
            key = status.st_dev, status.st_ino
            state = f"{status.st_size} {status.st_mtime_ns}"
        first = firsts.setdefault(key, sample)
        if first is not sample:
            duplicates.append(Duplicate(row.path, first.path, first.label != sample.label))
            continue
        line = f"{os.path.abspath(row.path)}\0{sample.label}\0{state}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return tuple(firsts.values()), tuple(duplicates), digest.hexdigest()
