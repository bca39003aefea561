"""A quick network of seven classes and images for it, whose right answers NumPy works out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import striate as st
from striate.evaluation import Outcome
from striate.layers import Flatten, GlobalAvgPool2d, Linear
from striate.weights.presets import PresetData

PRESET = PresetData(resize=8, crop=8)
CLASSES = ("blue", "brown", "green", "grey", "red", "white", "yellow")


def network(seed: int = 0) -> st.Sequential:
    """Seven scores that are linear in the mean colour."""
    rng = np.random.default_rng(seed)
    model = st.Sequential(GlobalAvgPool2d(), Flatten(), Linear(3, 7))
    model[2].load_state_dict(
        {
            "weight": rng.standard_normal((7, 3)).astype(np.float32),
            "bias": rng.standard_normal(7).astype(np.float32),
        }
    )
    model.preset = PRESET  # type: ignore[assignment]
    return model


def guesses_of(path: Path, seed: int = 0) -> list[int]:
    """The five most probable classes of an image of one colour."""
    state = network(seed)[2].state_dict()
    colour = np.asarray(Image.open(path).convert("RGB"), np.float64)[0, 0] / 255
    scores = state["weight"] @ ((colour - PRESET.mean) / PRESET.std) + state["bias"]
    return np.argsort(-scores)[:5].tolist()


def paint(path: Path, number: int, size: tuple[int, int] = (9, 8)) -> Path:
    """An image of one colour, which `number` decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng(number).integers(0, 256, 3)
    Image.new("RGB", size, tuple(colour.tolist())).save(path, "PNG")
    return path


def class_folders(root: Path, each: int = 5, names: Sequence[str] = CLASSES) -> Path:
    """A folder for each class with `each` images."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(each):
            paint(root / name / f"{number}.png", label * each + number)
    return root


def expected(outcomes: Sequence[Outcome], seed: int = 0) -> tuple[int, int]:
    """How many top-1 and top-5 errors those images and classes give."""
    found = [(one.label, guesses_of(one.path, seed)) for one in outcomes]
    first = sum(label != guesses[0] for label, guesses in found)
    return first, sum(label not in guesses for label, guesses in found)
