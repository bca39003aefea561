"""Compiled networks against torchvision's logits, with Winograd's algorithm and without."""

import json

import numpy as np
import pytest
from golden_numbers import FOLDER, cases, difference, logits, state_dict

import striate
from striate import models

NAMES = sorted({name.split("/")[0] for name in logits()})
PHOTOS = json.loads((FOLDER / "photos.json").read_text())
EXAMPLES = FOLDER.parents[1] / "examples" / "photos"
MOBILENET = FOLDER.parents[2] / "shared" / "weights" / "mobilenet_v2-b0353104.pth"


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_torchvisions(name: str) -> None:
    network = models.create(name)
    network.load_state_dict(state_dict(name))
    for batch, expected in cases(name):
        pixels = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        assert difference(network(pixels), expected) <= 1e-4


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "googlenet", "mnasnet0_5"])
def test_logits_are_closer_without_winograd(name: str) -> None:
    network = models.create(name)
    network.load_state_dict(state_dict(name))
    for batch, expected in cases(name):
        pixels = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        run = network.compile(pixels.shape, algorithm="direct")
        assert not any(kernel.schedule == "winograd" for kernel in run.program.kernels)
        assert difference(run(pixels)[0], expected) <= 1e-5


def check_photos(network: models.Classifier, expected: dict[str, dict[str, list]]) -> None:
    for photo, answer in expected.items():
        (found,) = striate.classify(network, [EXAMPLES / photo], top=5)
        assert [guess.index for guess in found.top] == [index for index, *_ in answer["top5"]]
        wanted = [probability for *_, probability in answer["top5"]]
        got = [guess.probability for guess in found.top]
        np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_photos_through_the_packaged_weights() -> None:
    network = models.create("efficientnet_lite0", weights="imagenet")
    check_photos(network, PHOTOS["efficientnet_lite0"])


@pytest.mark.skipif(not MOBILENET.exists(), reason="needs ../shared/weights/mobilenet_v2")
def test_photos_through_torchvisions_weights() -> None:
    network = models.create("mobilenet_v2", weights=MOBILENET)
    check_photos(network, PHOTOS["mobilenet_v2"])
