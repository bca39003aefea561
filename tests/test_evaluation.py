"""Evaluation: the counts and what follows from them, interruption and resumption."""

import json
import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from evaluation_data import CLASSES, PRESET, class_folders, expected, guesses_of, network, paint

import striate as st
from striate.evaluation import Share
from striate.evaluation.dataset import DataError
from striate.evaluation.journal import JournalError
from striate.evaluation.page import as_html
from striate.evaluation.sheet import contact_sheet, thumbnail
from striate.images import Preset

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "examples" / "photos"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data")


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_in_print(k: int, n: int, low: float, high: float) -> None:
    assert Share(k, n).interval == pytest.approx((low, high), abs=5e-5)
    mirrored = Share(n - k, n).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 50_000])
def test_intervals_at_the_ends_hold_the_share(n: int) -> None:
    assert Share(0, n).interval[0] == 0.0 < Share(0, n).interval[1]
    assert Share(n, n).interval[1] == 1.0 > Share(n, n).interval[0]


@pytest.mark.parametrize("batch", [1, 4, 8, 64])
def test_every_image_is_counted_once(data: Path, batch: int) -> None:
    result = st.evaluate(network(), data, batch=batch, threads=1)
    assert len(result.outcomes) == 35
    assert sorted({one.path for one in result.outcomes}) == sorted(data.rglob("*.png"))
    assert (result.top1_error.count, result.top5_error.count) == expected(result.outcomes)
    assert 0 < result.top5_error.count < result.top1_error.count < 35
    for one in result.outcomes:
        assert CLASSES[one.label] == one.path.parent.name
        assert [index for index, _ in one.guesses] == guesses_of(one.path)


def test_classes_confusions_and_mistakes_add_up(data: Path) -> None:
    result = st.evaluate(network(), data)
    classes = result.by_class()
    assert {one.name for one in classes} == set(CLASSES)
    assert all(one.top1_error.total == 5 for one in classes)
    for one in classes:
        own = [outcome for outcome in result.outcomes if outcome.label == one.index]
        assert (one.top1_error.count, one.top5_error.count) == expected(own)
    assert [one.top1_error.value for one in classes] == sorted(
        (one.top1_error.value for one in classes), reverse=True
    )
    confusions = result.confusions()
    assert sum(pair.count for pair in confusions) == result.top1_error.count
    for pair in confusions:
        same = [o for o in result.outcomes if (o.label, o.guess) == (pair.label, pair.guess)]
        assert len(same) == pair.count
        assert pair.label != pair.guess
        assert pair.example.confidence == max(o.confidence for o in same)
    assert [pair.count for pair in confusions] == sorted(
        (pair.count for pair in confusions), reverse=True
    )
    mistakes = result.mistakes()
    assert [one.confidence for one in mistakes] == sorted(
        (one.confidence for one in mistakes), reverse=True
    )
    assert {one.path for one in mistakes} == {
        one.path for one in result.outcomes if guesses_of(one.path)[0] != one.label
    }


def test_answers_are_those_of_classify() -> None:
    files = sorted(PHOTOS.glob("*.[jp][pn]g"))
    labels = ["reflex camera", "n02124075", 698, "espresso", "daisy"]
    result = st.evaluate("efficientnet_lite0", zip(files, labels, strict=True), threads=1)
    for one, answer in zip(result.outcomes, st.classify("efficientnet_lite0", files), strict=True):
        assert [index for index, _ in one.guesses] == [guess.index for guess in answer.top]
        assert [share for _, share in one.guesses] == pytest.approx(
            [guess.probability for guess in answer.top], rel=1e-4
        )
    assert [result.name(one.label) for one in result.outcomes][3] == "espresso"
    assert [one.right for one in result.outcomes] == [False, False, True, True, True]
    assert result.top5_error.count == 0 + (not result.outcomes[0].in_top)


def test_a_compiled_network_finds_the_same(data: Path, tmp_path: Path) -> None:
    st.save(network(), tmp_path / "tiny.striate", (4, 8, 8, 3))
    compiled, whole = st.load(tmp_path / "tiny.striate"), st.evaluate(network(), data)
    journal = tmp_path / "journal"
    result = st.evaluate(compiled, data, journal=journal)
    assert [one.guess for one in result.outcomes] == [one.guess for one in whole.outcomes]
    again = st.evaluate(str(tmp_path / "tiny.striate"), data, journal=journal)
    assert (again, again.resumed) == (result, 35)


def test_a_network_without_scores_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match=r"ReLU gives no scores \[b, class\] of images"):
        st.evaluate(st.layers.ReLU(), data)


def test_without_exif_pixels_stay_as_stored(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (8, 16), "black")
    image.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "turned.png", exif=exif)
    preset = Preset(resize=8, crop=4)
    seen = []
    for upright in (True, False):
        from striate.evaluation.run import find_subject

        subject = find_subject(network(), "", preset, 1, upright)
        seen.append(subject.classifier.prepare(tmp_path / "turned.png"))
    assert (seen[0] == seen[1][::-1, ::-1]).all()
    assert (seen[0] != seen[1]).any()


def test_a_subset_is_the_same_everywhere_and_grows(data: Path, tmp_path: Path) -> None:
    def names(folder: Path, limit: int | None) -> list[str]:
        result = st.evaluate(network(), folder, limit=limit)
        return [f"{one.path.parent.name}/{one.path.name}" for one in result.outcomes]

    data.rename(tmp_path / "elsewhere")
    few, more = names(tmp_path / "elsewhere", 6), names(tmp_path / "elsewhere", 20)
    again = names(class_folders(tmp_path / "new"), 6)
    assert few == again
    assert len(few) == 6
    assert set(few) < set(more)
    assert len({name.split("/")[0] for name in more}) > 3
    assert len(names(tmp_path / "new", 1000)) == 35


def test_bad_images_are_named_and_not_counted(data: Path) -> None:
    good = st.evaluate(network(), data)
    bad = {
        "cut.png": (data / "red" / "0.png").read_bytes()[:50],
        "empty.jpg": b"",
        "text.jpg": b"no image",
    }
    for name, content in bad.items():
        (data / "red" / name).write_bytes(content)
    (data / "red" / "notes.txt").write_text("not looked at")
    result = st.evaluate(network(), data, batch=3)
    assert {one.path.name for one in result.failures} == set(bad)
    assert "the file is empty" in {one.reason for one in result.failures}
    assert result.outcomes == good.outcomes


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
    (tmp_path / "red" / "x.jpg").touch()
    with pytest.raises(DataError, match=r"none of its 1 images can be read.*the file is empty"):
        st.evaluate(network(), tmp_path)


def test_links_and_equal_images(data: Path) -> None:
    os.link(data / "red" / "0.png", data / "red" / "hard.png")
    (data / "white" / "soft.png").symlink_to(data / "red" / "1.png")
    paint(data / "red" / "copy.png", 4 * 5 + 2)
    result = st.evaluate(network(), data)
    assert len(result.outcomes) == 36
    equal = [one.guesses for one in result.outcomes if one.path.name in ("copy.png", "2.png")]
    assert len([g for g in equal if g == equal[-1]]) >= 1
    found = {(one.path.name, one.first.name, one.contradicts) for one in result.duplicates}
    assert found == {("hard.png", "0.png", False), ("soft.png", "1.png", True)}


class StoppedError(Exception):
    """Stands for the key that stops a run."""


def stopping(after: int):
    """A watcher that stops a run after so many images."""
    seen = count(1)

    def watch(_: str) -> None:
        if next(seen) == after:
            raise StoppedError

    return watch


def test_a_stopped_run_goes_on(data: Path, tmp_path: Path) -> None:
    (data / "red" / "bad.jpg").write_bytes(b"not an image")
    journal = tmp_path / "journal"
    whole = st.evaluate(network(), data)
    with pytest.raises(StoppedError):
        st.evaluate(network(), data, journal=journal, watch=stopping(11))
    names: list[str] = []
    result = st.evaluate(network(), data, journal=journal, watch=names.append)
    assert result == whole
    assert (result.resumed, len(names)) == (11, 36 - 11)
    finished = st.evaluate(network(), data, journal=journal)
    assert finished == whole
    assert finished.resumed == 35
    assert finished.images_per_second is None
    assert as_html(replace(result, seconds=0.0)) == as_html(replace(whole, seconds=0.0))
    again = st.evaluate(network(), data, journal=journal, restart=True)
    assert again == whole
    assert again.resumed == 0


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_broken_last_line_is_ignored(data: Path, tmp_path: Path, cut: int) -> None:
    journal = tmp_path / "journal"
    whole = st.evaluate(network(), data)
    with pytest.raises(StoppedError):
        st.evaluate(network(), data, journal=journal, watch=stopping(9))
    content = journal.read_bytes()
    journal.write_bytes(content[:-cut])
    with pytest.raises(StoppedError):
        st.evaluate(network(), data, journal=journal, watch=stopping(1))
    assert journal.read_bytes() == content
    result = st.evaluate(network(), data, journal=journal)
    assert result == whole
    assert result.resumed == 9


@pytest.mark.parametrize("garbage", [b"{}\n", b"[1]\n[", b"[0, [1]]\n", b'[2, ["a", 0.5]]\n'])
def test_lines_that_make_no_sense_end_the_journal(
    data: Path, tmp_path: Path, garbage: bytes
) -> None:
    journal = tmp_path / "journal"
    whole = st.evaluate(network(), data, journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], garbage, *lines[5:]]))
    with pytest.raises(StoppedError):
        st.evaluate(network(), data, journal=journal, watch=stopping(1))
    assert journal.read_bytes() == b"".join(lines[:6])
    result = st.evaluate(network(), data, journal=journal)
    assert result == whole
    assert result.resumed == 5
    assert journal.read_bytes() == b"".join(lines)


def test_a_subset_leaves_its_answers_to_the_whole(data: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    st.evaluate(network(), data, journal=journal, limit=10)
    assert st.evaluate(network(), data, journal=journal).resumed == 10
    assert st.evaluate(network(), data, journal=journal, limit=10).resumed == 10


def test_what_changed_begins_anew(data: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    def resumed(seed: int = 0, **options: object) -> int:
        result = st.evaluate(network(seed), data, journal=journal, **options)  # type: ignore[arg-type]
        if seed:
            assert (result.top1_error.count, result.top5_error.count) == expected(
                result.outcomes, seed
            )
        return result.resumed

    assert [resumed(), resumed(), resumed(1), resumed(1)] == [0, 35, 0, 35]
    other = Preset(resize=9, crop=8)
    assert [resumed(1, preset=other), resumed(1, preset=other, exif=False)] == [0, 0]
    assert resumed(1, preset=other, exif=False) == 35
    paint(data / "red" / "new.png", 99)
    assert [resumed(1), resumed(1)] == [0, 36]
    paint(data / "red" / "new.png", 98, (19, 8))
    assert resumed(1) == 0


@pytest.mark.parametrize("content", [b"dear diary\n", b'{"striate": "evolution"}\n', b"x"])
def test_a_file_that_is_no_journal_is_left_alone(
    data: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "diary").write_bytes(content)
    with pytest.raises(JournalError, match="it is no journal"):
        st.evaluate(network(), data, journal=tmp_path / "diary")
    assert (tmp_path / "diary").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b'{"str', b'{"striate": "evaluation", "network'])
def test_a_journal_without_a_whole_line_begins_anew(
    data: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "journal").write_bytes(content)
    assert st.evaluate(network(), data, journal=tmp_path / "journal").resumed == 0
    assert st.evaluate(network(), data, journal=tmp_path / "journal").resumed == 35


def test_a_page_says_nothing_unescaped(tmp_path: Path) -> None:
    names = ["<script>alert(1)<script>", *CLASSES[:5], "käse & 'ß' 犬"]
    data = class_folders(tmp_path / "<b>data", 3, names)
    paint(data / names[0] / '"><img src=x onerror=alert(2)>.png', 3)
    (data / names[1] / "<i>bad.png").write_bytes(b"")
    os.link(data / names[1] / "0.png", data / names[1] / "<u>.png")
    result = st.evaluate(network(), data)
    page = as_html(result, most=100)
    for tag in ("<script", "<img src=x", "<i>bad", "<u>.png", "<b>data"):
        assert tag not in page
    for text in ("&lt;script&gt;", "käse &amp; &#x27;ß&#x27; 犬", "&lt;i&gt;bad.png"):
        assert text in page
    assert page.count("<figure>") == result.top1_error.count
    assert "http" not in page
    assert json.loads(json.dumps(result.as_json()))["images"] == 22


def test_pictures_show_what_the_network_saw(data: Path) -> None:
    result = st.evaluate(network(), data)
    mistakes = result.mistakes()
    sheet = contact_sheet(result, mistakes)
    for one, left in zip(mistakes, (12, 184, 356), strict=False):
        assert sheet.getpixel((left + 80, 120)) == thumbnail(
            one.path, Preset.of(PRESET), 9
        ).getpixel((4, 4))
    mistakes[0].path.unlink()
    assert contact_sheet(result, mistakes[:1]).getpixel((92, 120)) == (192, 192, 192)
    assert contact_sheet(result, []).size[0] > 100
    assert "<figure>" in as_html(result)
