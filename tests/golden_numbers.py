"""The golden numbers of `golden/`, and the weights and inputs they were made with."""

import gzip
import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"

_spec = importlib.util.spec_from_file_location("golden_recipe", FOLDER / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)


@cache
def manifest():
    """What each network's state dict, input and size must be, by name."""
    return json.loads(gzip.decompress((FOLDER / "manifest.json.gz").read_bytes()))


@cache
def logits():
    """Expected logits by `NAME/logits` and `NAME/odd_logits`."""
    with np.load(FOLDER / "logits.npz") as file:
        return {name: file[name] for name in file}


def state_dict(name):
    """The golden weights of the network `name`."""
    shapes = manifest()[name]["state_dict"]
    return {key: recipe.tensor(key, tuple(shape)) for key, shape in shapes.items()}


def cases(name):
    """Inputs `[b, i, x, y]` and the logits expected for them."""
    entry = manifest()[name]
    yield recipe.image_batch(2, *entry["input"]), logits()[f"{name}/logits"]
    yield recipe.image_batch(1, *entry["odd_input"]), logits()[f"{name}/odd_logits"]


def difference(found, expected):
    """The largest difference, in largest logits."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
