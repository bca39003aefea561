"""Values that parameters have before anyone gives them others; drawn when first asked for."""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from striate.layers.arguments import AnyArray
from striate.notation.ir import Shape

_seeds = itertools.count()


@dataclass(slots=True)
class Initial:
    """An array to come: `shape` in the house's layout, filled in a `kind` of way.

    "uniform" draws from [-bound, bound), which depends on `seed` and the shape alone; "zeros" and
    "ones" are what they say; "counter" is a single int64 zero.
    """

    shape: Shape
    kind: Literal["uniform", "zeros", "ones", "counter"]
    bound: float = 0.0
    seed: int = -1

    def __post_init__(self) -> None:
        if self.seed < 0:
            self.seed = next(_seeds)

    def draw(self) -> AnyArray:
        """The array, read-only."""
        array: AnyArray
        match self.kind:
            case "uniform":
                array = np.random.Generator(np.random.SFC64(self.seed)).random(
                    self.shape, np.float32
                )
                array *= np.float32(2 * self.bound)
                array -= np.float32(self.bound)
            case "zeros":
                array = np.zeros(self.shape, np.float32)
            case "ones":
                array = np.ones(self.shape, np.float32)
            case "counter":
                array = np.zeros(self.shape, np.int64)
        array.flags.writeable = False
        return array

    def standin(self) -> AnyArray:
        """An array of the shape that takes no memory."""
        kind = np.int64 if self.kind == "counter" else np.float32
        return np.broadcast_to(kind(0), self.shape)


def fan_in_uniform(shape: Shape, fan_in: int) -> Initial:
    """Uniform within 1 / sqrt(fan_in), as torch draws weights and biases of its layers."""
    return Initial(shape, "uniform", bound=fan_in**-0.5)
