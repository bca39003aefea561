"""An image in parts: those that a few pixels show, or those that its hypercolumns fall into.

Both ways are linear in the hypercolumns, and so is their interpolation: a map of scores is the sum
over the layers of each layer's own small map of scores, enlarged. No hypercolumn of a whole image
is ever made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.extras import require
from striate.vision.classification import network_of, preset_of
from striate.vision.hypercolumns import (
    Array,
    Grid,
    Layer,
    Passage,
    Pixels,
    checked_pixels,
    pixels_of,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from striate.images import Preset
    from striate.images.loading import Source
    from striate.layers import Module

# Pixels of the longer side of what the network is shown: more than it was trained on, and the size
# at which pictures with known masks were measured.
LONGEST = 640
# Pixels that tell how much each feature varies over the image, and what its regions are.
_SAMPLE = 2000
# How little the logistic regression is held back (scikit-learn's C).
_FREEDOM = 10.0
# Directions of the hypercolumns that regions are told apart by.
_COMPONENTS = 16


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Which pixels belong to the object, bool`mask[x,y]`, and how sure that is.

    `scores` float32`[x,y]` are log odds: above 0 inside, below 0 outside.
    """

    mask: NDArray[np.bool_]
    scores: Array


def segment(
    model: "str | Module",
    image: "Source | Array",
    inside: object,
    outside: object,
    layers: Sequence[str] | None = None,
    *,
    longest: int | None = LONGEST,
    preset: "Preset | None" = None,
    threads: int | None = None,
) -> Segmentation:
    """The object that a few of its pixels show, and a few others that do not belong to it.

    `inside` and `outside` are pixels `[n, 2]` (row x, column y, from 0 on). A logistic regression
    learns from their hypercolumns (bilinear) and is asked about every pixel. `model`, `image`,
    `layers` and `preset` are as for `hypercolumns`; the network is shown an image whose longer side
    has at most `longest` pixels, the answer has the image's own. Needs scikit-learn. Raises
    ImageError, ValueError, TypeError, and UnavailableError that says what to install.
    """
    check()
    scene = _Scene.of(model, image, layers, longest, preset, threads)
    given = [
        checked_pixels(at, scene.size, name)
        for at, name in ((inside, "inside"), (outside, "outside"))
    ]
    for at, name in zip(given, ("inside", "outside"), strict=True):
        if not len(at):
            raise ValueError(f"{name} has no pixels; expected one or more")
    both = set(map(tuple, given[0].tolist())) & set(map(tuple, given[1].tolist()))
    if both:
        row, column = min(both)
        raise ValueError(
            f"the pixel of row {row} and column {column} is given as inside and as outside; "
            "expected one of them"
        )
    labels = np.repeat([1, 0], [len(at) for at in given])
    points = np.concatenate(given)
    sampled = scene.columns(np.concatenate([points, scene.sample()]))
    shift, scale = scene.standard(sampled[len(points) :])
    weights, bias = _learned((sampled[: len(points)] - shift) * scale, labels)
    weights = weights * scale
    scores = scene.scores(weights[:, np.newaxis])[..., 0]
    scores += bias - float(shift @ weights)
    return Segmentation(scores > 0, scores)


def regions(
    model: "str | Module",
    image: "Source | Array",
    count: int,
    layers: Sequence[str] | None = None,
    *,
    longest: int | None = LONGEST,
    preset: "Preset | None" = None,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """The `count` kinds of pixels that the image is made of: the number of each pixel's, `[x,y]`.

    The largest is 0. k-means divides the main directions of a sample of hypercolumns. Arguments
    and errors are those of `segment`.
    """
    check()
    if not 2 <= count <= 256:
        raise ValueError(f"regions is {count}, expected 2 to 256")
    scene = _Scene.of(model, image, layers, longest, preset, threads)
    sampled = scene.columns(scene.sample())
    kinds = len(np.unique(sampled, axis=0))
    if kinds < count:
        raise ValueError(f"regions is {count}, more than the image has different pixels: {kinds}")
    shift, scale = scene.standard(sampled)
    centres = _centres((sampled - shift) * scale, count)
    # The nearest centre c of z is the one with the largest c.z - |c|^2 / 2, which is linear in z.
    weights = (centres * scale).T
    bias = -shift @ weights - (centres**2).sum(1) / 2
    scores = scene.scores(weights)
    scores += bias.astype(np.float32)
    nearest = scores.argmax(-1)
    order = np.argsort(-np.bincount(nearest.ravel(), minlength=count), kind="stable")
    return np.asarray(np.argsort(order)[nearest], np.int64)


def check() -> None:
    """Raises UnavailableError where scikit-learn is not there."""
    require("sklearn", "segment", "segmenting needs scikit-learn")


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the network is shown, and the layers watched; all else is said in the image's pixels.

    `size` is the image's (rows, columns); the layers' strides are pixels of the image.
    """

    size: tuple[int, int]
    pixels: Array
    passage: Passage

    @staticmethod
    def of(
        model: "str | Module",
        image: "Source | Array",
        layers: Sequence[str] | None,
        longest: int | None,
        preset: "Preset | None",
        threads: int | None,
    ) -> "_Scene":
        """The scene of an image, reduced to `longest` pixels."""
        from striate.images import load, reduced

        network = network_of(model)
        given: Image | Array = image if isinstance(image, np.ndarray) else load(image)
        size = given.shape[:2] if isinstance(given, np.ndarray) else given.size[::-1]
        shown = given if isinstance(given, np.ndarray) else reduced(given, longest)
        pixels = pixels_of(shown, preset or preset_of(network))
        passage = Passage.of(network, pixels.shape, layers, threads)
        rows, columns = (Fraction(n, m) for n, m in zip(size, pixels.shape, strict=False))
        scaled = [
            replace(layer, stride=(layer.stride[0] * rows, layer.stride[1] * columns))
            for layer in passage.layers
        ]
        return _Scene((size[0], size[1]), pixels, replace(passage, layers=tuple(scaled)))

    def sample(self) -> Pixels:
        """Pixels of all parts of the image `[n, 2]`, always the same."""
        random = np.random.default_rng(0)
        return np.stack([random.integers(0, n, _SAMPLE) for n in self.size], 1)

    def columns(self, at: Pixels) -> Array:
        """The hypercolumns of the pixels `at`, bilinear."""
        values = np.empty((len(at), self.passage.features), np.float32)

        def see(layer: Layer, cells: Array) -> None:
            values[:, layer.columns] = Grid(layer, "bilinear").take(cells, at)

        self.passage.run(self.pixels, see)
        return values

    def standard(self, columns: Array) -> tuple[Array, Array]:
        """What to take off each feature, and what to multiply it by.

        The features of each layer then vary together by its share: layers of many features do not
        outvote others. Coarse maps know what a thing is, fine ones where it ends; the share of a
        map with stride f is sqrt(f), which was best on pictures with known masks.
        """
        steps = [math.sqrt(layer.stride[0] * layer.stride[1]) for layer in self.passage.layers]
        scale = 1.0 / np.maximum(columns.std(0), 1e-6)
        for layer, step in zip(self.passage.layers, steps, strict=True):
            scale[layer.columns] *= math.sqrt(step / max(steps) / layer.shape[-1])
        return columns.mean(0), scale.astype(np.float32)

    def scores(self, weights: Array) -> Array:
        """`[x,y,k]`: every pixel's hypercolumn (bilinear) times `weights` `[features, k]`."""
        scores = np.zeros((*self.size, weights.shape[1]), np.float32)

        def see(layer: Layer, cells: Array) -> None:
            own = np.ascontiguousarray(cells) @ weights[layer.columns]
            Grid(layer, "bilinear").spread(own, scores, add=True)

        self.passage.run(self.pixels, see)
        return scores


def _learned(columns: Array, labels: NDArray[np.int64]) -> tuple[Array, float]:
    linear = import_module("sklearn.linear_model")
    model = linear.LogisticRegression(C=_FREEDOM, class_weight="balanced", max_iter=1000)
    model.fit(columns, labels)
    return np.asarray(model.coef_[0], np.float32), float(model.intercept_[0])


def _centres(columns: Array, count: int) -> Array:
    cluster, decomposition = map(import_module, ("sklearn.cluster", "sklearn.decomposition"))
    components = min(_COMPONENTS, columns.shape[1])
    reduction = decomposition.PCA(components, random_state=0).fit(columns)
    found = cluster.KMeans(count, n_init=4, random_state=0).fit(reduction.transform(columns))
    return np.asarray(found.cluster_centers_ @ reduction.components_, np.float32)
