"""What is raced: networks, their weights and their images, all drawn from names alone.

No file is needed: anyone draws the same numbers again with NumPy. Weights keep the size of the
activations from layer to layer, so that every logit says something.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from striate.layers.arguments import AnyArray, Array
from striate.models import create, find

if TYPE_CHECKING:
    from striate.models.blocks import Classifier

NETWORKS = (
    "alexnet",
    "vgg16",
    "resnet18",
    "resnet50",
    "squeezenet1_0",
    "densenet121",
    "inception_v3",
    "googlenet",
    "shufflenet_v2_x1_0",
    "mobilenet_v2",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "mnasnet1_0",
)


class UnavailableError(ValueError):
    """Something that an engine needs is not here; the message says what and how to get it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One network at one batch, with one number of threads."""

    network: str
    batch: int
    threads: int

    def images(self) -> Array:
        """float32[batch, 3, height, width] in [-2, 2)."""
        return images(self.batch, *find(self.network).input)


def uniform(name: str, shape: Sequence[int]) -> Array:
    """float32 in [0, 1): a function of `name` and `shape` only, filled in C order."""
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(count)
    fractions: Array = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return fractions.reshape(tuple(shape))


def images(batch: int, height: int, width: int) -> Array:
    """float32[batch, 3, height, width] in [-2, 2)."""
    drawn = uniform(f"input {batch}x{height}x{width}", (batch, 3, height, width))
    scaled: Array = drawn * np.float32(4) - np.float32(2)
    return scaled


def weight(name: str, shape: Sequence[int]) -> AnyArray:
    """The value of a state dict's entry, in torchvision's layout.

    Filters have the variance 2 / fan-in (He et al. 2015), scales and variances of batch norms lie
    near 1, biases and means near 0.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(tuple(shape), np.int64)
    drawn = uniform(name, shape)
    if name.endswith(("running_mean", "bias")):
        return (drawn - np.float32(0.5)) * np.float32(0.2)
    if len(shape) == 1:  # a batch norm's scale or running variance
        return np.float32(0.75) + np.float32(0.5) * drawn
    fan_in = int(np.prod(shape[1:]))
    return (drawn * np.float32(2) - np.float32(1)) * np.float32(np.sqrt(6.0 / fan_in))


def state_dict(name: str) -> dict[str, AnyArray]:
    """All weights of the network `name`."""
    return {key: weight(key, shape) for key, shape in create(name).state_shapes().items()}


@cache
def check_network(name: str) -> None:
    """ValueError with the nearest names if there is no network `name`."""
    find(name)


def network(name: str) -> "Classifier":
    """The network `name` with its drawn weights."""
    model = create(name)
    model.load_state_dict(state_dict(name))
    return model
