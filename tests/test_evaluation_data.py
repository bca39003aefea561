"""Where images and their classes come from: folders, lists, ImageNet's layout; and hostile ones."""

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import CLASSES, class_folders, paint

from striate.evaluation.dataset import DataError, Dataset, read_dataset
from striate.images import ImageError, class_names
from striate.vision.classification import Label

KNOWN = tuple(Label(one.name, one.synset) for one in class_names())
SYNSETS = [one.synset for one in class_names()]
# The devkit's order is none that anyone could guess.
DEVKIT = [SYNSETS[k] for k in np.random.default_rng(0).permutation(1000)]


def read(
    data: object, labels: Path | None = None, synsets: Path | None = None, classes: int = 1000
) -> Dataset:
    return read_dataset(data, labels, synsets, KNOWN, classes)  # type: ignore[arg-type]


def labels_of(dataset: Dataset) -> dict[str, int]:
    return {sample.path.name: sample.label for sample in dataset.samples}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images in a folder."""
    folder = tmp_path / "images"
    for number, name in enumerate(["a", "b", "ü 犬", "sub/d", "e,f"]):
        paint(folder / f"{name}.png", number)
    return folder


def write(path: Path, *lines: str, ending: str = "\n") -> Path:
    path.write_bytes("".join(line + ending for line in lines).encode())
    return path


def test_folders_of_a_networks_own_classes(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 2)
    (data / "red" / "deeper").mkdir()
    paint(data / "red" / "deeper" / "9.png", 0)
    paint(data / "red" / ".hidden.png", 0)
    paint(data / ".cache" / "x.png", 0)
    paint(data / "beside.png", 0)
    dataset = read(data, classes=7)
    assert [CLASSES[sample.label] for sample in dataset.samples] == [
        name for name in CLASSES for _ in range(3 if name == "red" else 2)
    ]
    assert [label.name for label in dataset.classes] == list(CLASSES)
    assert [path.name for path in dataset.unlabelled] == ["beside.png"]


def test_an_empty_folder_is_a_class(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 1, ["a", "c"])
    (data / "b").mkdir()
    assert [sample.label for sample in read(data, classes=3).samples] == [0, 2]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["n07920052", "n01440764"], [0, 967]),
        (["espresso", "Tabby"], [281, 967]),
        (["tiger_cat", "12", "7"], [12, 7, 282]),
    ],
)
def test_folders_of_imagenets_classes(
    tmp_path: Path, names: Sequence[str], numbers: Sequence[int]
) -> None:
    dataset = read(class_folders(tmp_path / "data", 1, names))
    assert [sample.label for sample in dataset.samples] == numbers
    assert dataset.classes == KNOWN


def test_a_network_with_as_many_classes_of_its_own(tmp_path: Path) -> None:
    names = [f"kind-{number:04}" for number in range(1000)]
    for name in names:
        (tmp_path / name).mkdir()
    paint(tmp_path / "kind-0017" / "x.png", 1)
    dataset = read(tmp_path)
    assert labels_of(dataset) == {"x.png": 17}
    assert dataset.classes[17].name == "kind-0017"


LISTS: dict[str, tuple[str, list[str]]] = {
    "commas": ("list.csv", ["a.png,1", "ü 犬.png,2", '"e,f.png",3']),
    "commas and a header": ("list.csv", ["path,label", "a.png,1", "ü 犬.png,2", '"e,f.png",3']),
    "other columns": (
        "list.csv",
        ["id,Class,size,FileName", "0,1,9,a.png", "1,2,9,ü 犬.png", '2,3,9,"e,f.png"'],
    ),
    "a mark of byte order": (
        "list.csv",
        ["\ufeffpath,label", "a.png,1", "ü 犬.png,2", '"e,f.png",3'],
    ),
    "tabs": ("list.tsv", ["a.png\t1", "ü 犬.png\t2", "", "e,f.png\t3"]),
    "semicolons": ("list.csv", ["file;target", "a.png;1", "ü 犬.png;2", "e,f.png;3"]),
    "words": ("val.txt", ["a.png 1", "ü 犬.png   2", "", "e,f.png 3"]),
    "without kinds": ("list.tsv", ["a\t1", "ü 犬\t2", "e,f\t3"]),
}


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lists(images: Path, form: str, ending: str) -> None:
    name, lines = LISTS[form]
    if form == "words":
        lines = lines[:3]
    expected = {"a.png": 1, "ü 犬.png": 2} | ({} if form == "words" else {"e,f.png": 3})
    beside = read(write(images / name, *lines, ending=ending), classes=7)
    assert labels_of(beside) == expected
    assert beside.classes[1].name == "class 1"
    elsewhere = write(images.parent / name, *lines, ending=ending)
    given = read(images, elsewhere, classes=7)
    assert labels_of(given) == expected
    assert given.digest == beside.digest
    assert len(given.unlabelled) == 5 - len(expected)


def test_lists_of_names_and_synsets(images: Path) -> None:
    table = write(
        images / "list.csv", "file,label", "a.png,n07920052", "b.png,tabby", "sub/d.png,3"
    )
    assert labels_of(read(table)) == {"a.png": 967, "b.png": 281, "d.png": 3}
    own = write(images / "own.csv", "path,class", "a.png,zebra", "b.png,ant", "sub/d.png,ant")
    dataset = read(own, classes=2)
    assert labels_of(dataset) == {"a.png": 1, "b.png": 0, "d.png": 0}
    assert [label.name for label in dataset.classes] == ["ant", "zebra"]


def test_a_listed_image_that_is_not_there_stays_in_the_list(images: Path) -> None:
    dataset = read(write(images / "list.csv", "a.png,1", "gone.png,2"), classes=3)
    assert labels_of(dataset) == {"a.png": 1, "gone.png": 2}


def test_rows_that_repeat_are_counted_once(images: Path) -> None:
    os.link(images / "a.png", images / "link.png")
    lines = ["a.png,1", "b.png,2", "a.png,1", "./b.png,0", "link.png,1", "gone.png,1", "gone.png,1"]
    dataset = read(write(images / "list.csv", *lines), classes=3)
    assert labels_of(dataset) == {"a.png": 1, "b.png": 2, "gone.png": 1}
    found = [(one.path.name, one.first.name, one.contradicts) for one in dataset.duplicates]
    assert found == [
        ("a.png", "a.png", False),
        ("b.png", "b.png", True),
        ("link.png", "a.png", False),
        ("gone.png", "gone.png", False),
    ]


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """ImageNet's layout: images 1 to 6, without 4."""
    folder = tmp_path / "val"
    for number in (1, 2, 3, 5, 6):
        path = paint(folder / f"{number}.png", number)
        path.rename(folder / f"ILSVRC2012_val_{number:08}.JPEG")
    return folder


TRUTH = [17, 500, 1000, 4, 17, 1]
TRUE = [SYNSETS.index(DEVKIT[number - 1]) for number in TRUTH]
EXPECTED = {f"ILSVRC2012_val_{k + 1:08}.JPEG": TRUE[k] for k in (0, 1, 2, 4, 5)}


def truth(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = "ILSVRC2012_validation_ground_truth.txt"
    return write(folder / name, *map(str, TRUTH))


def clsloc(path: Path) -> Path:
    lines = [f"{synset} {k} some_name" for k, synset in enumerate(DEVKIT, 1)]
    return write(path, *sorted(lines))


def mat(path: Path, wide: bool) -> Path:
    """What the devkit's meta.mat has of interest: numbers, synsets and words, then parents."""
    body = b""
    for number, synset in enumerate([*DEVKIT, "n00001740", "n00001930"], 1):
        text = synset.encode("utf-16-le" if wide else "ascii")
        body += struct.pack("<II", 9, 8) + struct.pack("<d", number)
        body += struct.pack("<II", 4 if wide else 16, len(text)) + text + bytes(-len(text) % 8)
    packed = zlib.compress(body)
    path.write_bytes(b"MATLAB 5.0".ljust(128) + struct.pack("<II", 15, len(packed)) + packed)
    return path


@pytest.mark.parametrize("place", [".", "..", "../ILSVRC2012_devkit_t12/data"])
def test_the_devkit_is_found(val: Path, place: str) -> None:
    folder = val / place
    truth(folder)
    with pytest.raises(DataError, match=r"the devkit's own order; give --synsets FILE"):
        read(val)
    mat(folder / "meta.mat", wide=False)
    assert labels_of(read(val)) == EXPECTED


@pytest.mark.parametrize(
    "make",
    [
        lambda path: clsloc(path.with_suffix(".txt")),
        lambda path: write(path.with_suffix(".txt"), *DEVKIT),
        lambda path: mat(path.with_suffix(".mat"), wide=False),
        lambda path: mat(path.with_suffix(".mat"), wide=True),
    ],
)
def test_the_devkits_order(val: Path, make: Callable[[Path], Path], tmp_path: Path) -> None:
    file = truth(tmp_path / "elsewhere")
    assert labels_of(read(val, file, make(tmp_path / "order"))) == EXPECTED


def test_other_truths(val: Path, tmp_path: Path) -> None:
    synsets = write(tmp_path / "truth.txt", *(SYNSETS[k] for k in TRUE))
    assert labels_of(read(val, synsets)) == EXPECTED
    stems = [f"ILSVRC2012_val_{k + 1:08}" for k in (5, 4, 2, 1, 0)]
    rows = [f"{name},{SYNSETS[EXPECTED[f'{name}.JPEG']]} 1 2 3 4 " for name in stems]
    write(val.parent / "LOC_val_solution.csv", "ImageId,PredictionString", *rows)
    assert labels_of(read(val)) == EXPECTED
    (val.parent / "LOC_val_solution.csv").unlink()
    write(val.parent / "val.txt", *(f"{name}.JPEG {EXPECTED[f'{name}.JPEG']}" for name in stems))
    assert labels_of(read(val)) == EXPECTED


def test_the_devkits_order_must_be_one(val: Path, tmp_path: Path) -> None:
    file = truth(tmp_path)
    for lines, words in (
        (SYNSETS, "its synsets are sorted; expected the devkit's order"),
        (DEVKIT[:-1], "999 of them are there"),
        ([*DEVKIT[:-1], DEVKIT[0]], "each once; 999"),
        (["kit fox"], "line 1: expected a synset"),
    ):
        with pytest.raises(DataError, match=words):
            read(val, file, write(tmp_path / "order.txt", *lines))
    (tmp_path / "meta.mat").write_bytes(b"x" * 128 + struct.pack("<II", 15, 9) + b"no zlib!!")
    with pytest.raises(DataError, match=r"meta.mat: it is damaged"):
        read(val, file)
    (tmp_path / "meta.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"0 of them are there"):
        read(val, file)


def test_truths_that_do_not_fit(val: Path, tmp_path: Path) -> None:
    order = clsloc(tmp_path / "map_clsloc.txt")
    with pytest.raises(DataError, match=r"line 2: expected a class from 1 to 1000, got '1001'"):
        read(val, write(tmp_path / "truth.txt", "1", "1001", "3", "4", "5", "6"))
    with pytest.raises(DataError, match=r"00000005.JPEG: .* a line for each .* to 00000004"):
        read(val, write(tmp_path / "truth.txt", "1", "2", "3", "4"))
    paint(val / "cat.png", 1)
    with pytest.raises(DataError, match=r"cat.png: .* this is none of them"):
        read(val, truth(tmp_path), order)


# Lines of a list for seven classes, and what is said of them.
BAD: dict[str, tuple[list[str], str]] = {
    "empty": ([], "it is empty, expected lines of path, label"),
    "blank": (["", "  "], "it is empty"),
    "only a header": (["path,label"], "it names columns and no images"),
    "no label": (["a.png,1", "b.png,"], "line 2: expected a path and a label, got 'b.png '"),
    "no path": (["a.png,1", ",1"], "line 2: expected a path and a label"),
    "one word": (["a.png 1", "b.png"], "line 2: expected a path and a label"),
    "many columns": (["a.png,1,2"], "it has 3 columns; name them in its first line"),
    "label outside": (
        ["a.png,1", "b.png,7"],
        "line 2: there is no class 7; the network has 0 to 6",
    ),
    "names, too few": (["a.png,ant", "b.png,bee"], r"has 7 classes, the data 2 \('ant', 'bee'\)"),
    "negative": (["a.png,-1", "b.png,2"], "has 7 classes, the data 2"),
    "zero byte": (["a\0.png,ant", "b.png,bee"], "has 7 classes, the data 2|line 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lists(images: Path, case: str) -> None:
    lines, words = BAD[case]
    with pytest.raises(DataError, match=words) as caught:
        read(write(images / "list.csv", *lines), classes=7)
    assert "\n" not in str(caught.value)


def test_bad_labels_of_imagenet(images: Path) -> None:
    for label, words in (
        ("1000", "line 2: there is no class 1000; they are 0 to 999"),
        ("-1", "line 2: there is no class -1"),
        ("n00000000", "line 2: there is no class 'n00000000'"),
        ("coffee", "line 2: there is no class 'coffee'|'coffee' stands in names of classes"),
        ("kuvas", "line 2: there is no class 'kuvas'; did you mean 'kuvasz'"),
        ("espreso", "line 2: .* did you mean 'espresso'.*; expected a synset, a name or a number"),
    ):
        with pytest.raises(DataError, match=words):
            read(write(images / "list.csv", "a.png,1", f"b.png,{label}"))


def test_bad_places(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: there are no class folders in it; give --labels"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "class").mkdir()
    with pytest.raises(DataError, match="empty: there are no images"):
        read(tmp_path / "empty", classes=1)
    (images / "sub" / "d.png").unlink()
    (images / "sub").rmdir()
    with pytest.raises(DataError, match="there are no class folders in it; give --labels FILE"):
        read(images)
    table = write(tmp_path / "list.csv", "a.png,1")
    with pytest.raises(DataError, match=r"list.csv is a file; with --labels expected"):
        read(table, table)
    with pytest.raises(OSError, match=r"no\.csv"):
        read(images, tmp_path / "no.csv")
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\0a\0,")
    with pytest.raises(DataError, match="it is not text in UTF-8"):
        read(table)
    with pytest.raises(DataError, match="images: there are no images"):
        read([])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 1)
    (data / "red").chmod(0)
    with pytest.raises(ImageError, match="red: the folder cannot be read: Permission denied"):
        read(data, classes=7)
    (data / "red").chmod(0o755)
