"""Classification: which images a network sees, in which batches, and what it is said to see."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import striate as st
from striate.images import Preset
from striate.vision.classification import (
    Classification,
    Classifier,
    Label,
    Unreadable,
    name_of,
    preset_of,
    softmax,
)

Array = NDArray[np.float32]
LABELS = tuple(Label(name, f"n{k}") for k, name in enumerate("abcd"))


class Recorder:
    """A network of four classes whose scores are the image's first four numbers."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, batch: Array) -> Array:
        self.batches.append(len(batch))
        return batch.reshape(len(batch), -1)[:, :4]


def prepare(image: object) -> Array:
    if isinstance(image, Exception):
        raise image
    assert isinstance(image, int)
    scores = np.zeros((2, 2, 1), np.float32)
    scores.flat[image % 4] = 1 + image
    return scores


def seen(images: list[object], **settings: int) -> tuple[list[str], list[int]]:
    """What each image is said to show (! for an unreadable one), and the sizes of the batches."""
    network = Recorder()
    named = [(str(place), image) for place, image in enumerate(images)]
    results = list(Classifier(network, prepare, LABELS).each(named, **settings))
    assert [result.source for result in results] == [name for name, _ in named]
    return (
        ["!" if isinstance(r, Unreadable) else r.best.name for r in results],
        network.batches,
    )


def test_images_stay_in_order() -> None:
    assert seen([0, 1, 2, 3, 1]) == (["a", "b", "c", "d", "b"], [1] * 5)


def test_last_batch_is_filled_up() -> None:
    assert seen([0, 1, 2, 3, 1], batch=2) == (["a", "b", "c", "d", "b"], [2, 2, 2])


def test_a_batch_that_is_never_full_is_not_filled_up() -> None:
    assert seen([0, 1, 2], batch=8) == (["a", "b", "c"], [3])


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("readers", [1, 3])
def test_unreadable_images_take_no_place_in_a_batch(batch: int, readers: int) -> None:
    bad = ValueError("bad")
    images: list[object] = [bad, 0, bad, 1, 2, bad, 3, OSError("gone")]
    names, batches = seen(images, batch=batch, readers=readers)
    assert names == ["!", "a", "!", "b", "c", "!", "d", "!"]
    assert sum(batches) - 4 < batch


def test_only_unreadable_images_run_nothing() -> None:
    assert seen([ValueError("x"), ValueError("y")], batch=2) == (["!", "!"], [])
    assert seen([]) == ([], [])


def test_faults_are_not_taken_for_unreadable_images() -> None:
    with pytest.raises(ZeroDivisionError):
        seen([0, ZeroDivisionError()])


def test_reading_keeps_only_a_little_ahead() -> None:
    asked: list[int] = []

    def images() -> Iterator[tuple[str, object]]:
        for number in range(100):
            asked.append(number)
            yield str(number), number

    results = Classifier(Recorder(), prepare, LABELS).each(images(), readers=2)
    next(results)
    assert len(asked) < 10
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("setting", ["top", "batch"])
def test_counts_below_one_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is 0, expected 1 or more"):
        seen([0], **{setting: 0})


def test_guesses_are_sorted_and_ties_go_to_the_first() -> None:
    classifier = Classifier(Recorder(), prepare, LABELS)
    guesses = classifier.guesses(np.array([1, 3, 3, 0], np.float32), 3)
    assert [guess.index for guess in guesses] == [1, 2, 0]
    assert [guess.synset for guess in guesses] == ["n1", "n2", "n0"]
    total = 2 * np.exp(3) + np.exp(1) + 1
    expected = [np.exp(3) / total, np.exp(3) / total, np.exp(1) / total]
    assert [guess.probability for guess in guesses] == pytest.approx(expected, rel=1e-12)


def test_other_numbers_of_classes_are_called_by_number() -> None:
    classifier = Classifier(Recorder(), prepare, LABELS)
    guesses = classifier.guesses(np.array([0, 5], np.float32), 5)
    assert [(guess.name, guess.synset) for guess in guesses] == [("class 1", ""), ("class 0", "")]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error(bad: float) -> None:
    classifier = Classifier(Recorder(), prepare, LABELS)
    with pytest.raises(ValueError, match="not finite"):
        classifier.guesses(np.array([0, bad], np.float32), 1)


def test_softmax_of_large_scores() -> None:
    probabilities = softmax(np.array([3e38, 0, -3e38], np.float32))
    assert probabilities.tolist() == [1.0, 0.0, 0.0]


def test_result_as_text() -> None:
    classifier = Classifier(Recorder(), prepare, LABELS)
    result = Classification("cat.jpg", classifier.guesses(np.array([0, 9, 0, 0], np.float32), 2))
    assert str(result) == "cat.jpg\n  100.0%  b\n    0.0%  a"


def picture() -> Image.Image:
    rows = np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8)
    return Image.fromarray(rows)


def test_every_kind_of_image_gives_the_same_answer(tmp_path: "object") -> None:
    data = io.BytesIO()
    picture().save(data, "PNG")
    path = f"{tmp_path}/noise.png"
    with open(path, "wb") as file:
        file.write(data.getvalue())
    with open(path, "rb") as opened:
        results = st.classify(
            "efficientnet_lite0", [path, data.getvalue(), picture(), opened], top=3, threads=1
        )
    assert [result.source for result in results] == [path, "image", "image", path]
    assert len({result.top for result in results}) == 1
    assert len(results[0].top) == 3
    assert results[0].best.synset.startswith("n")


def test_one_image_may_stand_alone() -> None:
    assert len(st.classify("efficientnet_lite0", picture(), top=1, threads=1)) == 1


def test_first_bad_image_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jpg: no such file"):
        st.classify("efficientnet_lite0", ["nowhere.jpg"], threads=1)


def test_a_network_without_scores_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="gives no scores"):
        st.classify(st.layers.ReLU(), picture())


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("resnet18", Preset()),
        ("mnasnet1_3", Preset(resize=232)),
        ("inception_v3", Preset(resize=342, crop=299)),
        ("alexnet_2012", Preset(crop=227)),
        (
            "efficientnet_lite0",
            Preset(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"),
        ),
    ],
)
def test_a_network_knows_its_preset(name: str, preset: Preset) -> None:
    assert preset_of(st.models.create(name)) == preset


def test_the_preset_is_that_of_the_file(tmp_path: Path) -> None:
    """Of the same network and the same numbers, and known by the name of the file alone."""
    state = st.models.create("mobilenet_v2").state_dict()
    for file, resize in (
        ("mobilenet_v2-b0353104.safetensors", 256),
        ("mobilenet_v2-7ebf99e0.safetensors", 232),
        ("mine.safetensors", 256),
    ):
        st.weights.write_safetensors(tmp_path / file, state)
        assert preset_of(st.models.create("mobilenet_v2", tmp_path / file)).resize == resize


class Echo(st.Module):
    """A network whose scores are an image's size and its first three numbers."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, input: Array, **_: object) -> Array:  # type: ignore[override]
        self.sizes.append(input.shape)
        return input.reshape(len(input), -1)[:, :4]


def test_classify_prepares_images_as_the_network_or_the_caller_says() -> None:
    network = Echo()
    st.classify(network, picture())
    network.preset = st.models.find("alexnet_2012").preset
    st.classify(network, picture())
    st.classify(network, picture(), preset=Preset(40, 32))
    assert network.sizes == [(1, 224, 224, 3), (1, 227, 227, 3), (1, 32, 32, 3)]


def test_names_of_images() -> None:
    assert name_of("a/b.png") == "a/b.png"
    assert name_of(b"\x89PNG") == "image"
    assert name_of(io.BytesIO()) == "image"
