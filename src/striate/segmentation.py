"""An image in parts: those that a few pixels show, or those that its hypercolumns fall into.

Both ways are linear in the hypercolumns, and so is their interpolation: a map of scores is the sum
over the layers of each layer's own small map of scores, enlarged. No hypercolumn of a whole image
is ever made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.classification import preset_of
from striate.columns import (
    Array,
    Grid,
    Layer,
    Passage,
    Pixels,
    checked_pixels,
    network_of,
    pixels_of,
)

if TYPE_CHECKING:
    from striate.images import Preset
    from striate.images.loading import Source
    from striate.layers import Module

# Pixels that tell how much each feature varies over the image, and what its regions are.
_SAMPLE = 2000
# How little the logistic regression is held back, where every layer's features together vary by 1.
_FREEDOM = 1.0
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
    preset: "Preset | None" = None,
    threads: int | None = None,
) -> Segmentation:
    """The object that a few of its pixels show, and a few others that do not belong to it.

    `inside` and `outside` are pixels `[n, 2]` (row x, column y, from 0 on). A logistic regression
    learns from their hypercolumns (bilinear) and is asked about every pixel. `model`, `image`,
    `layers` and `preset` are as for `hypercolumns`. Needs scikit-learn. Raises ImageError,
    ValueError, TypeError, and ModuleNotFoundError that says what to install.
    """
    check()
    pixels, passage = _prepared(model, image, layers, preset, threads)
    given = [
        checked_pixels(at, pixels.shape[:2], name)
        for at, name in ((inside, "inside"), (outside, "outside"))
    ]
    for at, name in zip(given, ("inside", "outside"), strict=True):
        if not len(at):
            raise ValueError(f"{name} has no pixels; expected one or more")
    labels = np.repeat([1, 0], [len(at) for at in given])
    points = np.concatenate(given)
    sampled = _columns(passage, pixels, np.concatenate([points, _sample(pixels)]))
    shift, scale = _standard(passage, sampled[len(points) :])
    weights, bias = _learned((sampled[: len(points)] - shift) * scale, labels)
    weights = weights * scale
    scores = _scores(passage, pixels, weights[:, np.newaxis])[..., 0]
    scores += bias - float(shift @ weights)
    return Segmentation(scores > 0, scores)


def regions(
    model: "str | Module",
    image: "Source | Array",
    count: int,
    layers: Sequence[str] | None = None,
    *,
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
    pixels, passage = _prepared(model, image, layers, preset, threads)
    sampled = _columns(passage, pixels, _sample(pixels))
    shift, scale = _standard(passage, sampled)
    centres = _centres((sampled - shift) * scale, count)
    # The nearest centre c of z is the one with the largest c.z - |c|^2 / 2, which is linear in z.
    weights = (centres * scale).T
    bias = -shift @ weights - (centres**2).sum(1) / 2
    scores = _scores(passage, pixels, weights)
    scores += bias.astype(np.float32)
    nearest = scores.argmax(-1)
    order = np.argsort(-np.bincount(nearest.ravel(), minlength=count), kind="stable")
    return np.asarray(np.argsort(order)[nearest], np.int64)


def check() -> None:
    """Raises ModuleNotFoundError where scikit-learn is not there."""
    if find_spec("sklearn") is None:
        raise ModuleNotFoundError("segmenting needs scikit-learn: pip install 'striate[segment]'")


def _prepared(
    model: "str | Module",
    image: "Source | Array",
    layers: Sequence[str] | None,
    preset: "Preset | None",
    threads: int | None,
) -> tuple[Array, Passage]:
    network = network_of(model)
    pixels = pixels_of(image, preset or preset_of(network))
    return pixels, Passage.of(network, pixels.shape, layers, threads)


def _sample(pixels: Array) -> Pixels:
    """Pixels of all parts of the image `[n, 2]`, always the same."""
    random = np.random.default_rng(0)
    rows, columns, _ = pixels.shape
    return np.stack([random.integers(0, rows, _SAMPLE), random.integers(0, columns, _SAMPLE)], 1)


def _columns(passage: Passage, pixels: Array, at: Pixels) -> Array:
    """The hypercolumns of the pixels `at`, bilinear."""
    values = np.empty((len(at), passage.features), np.float32)

    def see(layer: Layer, cells: Array) -> None:
        values[:, layer.columns] = Grid(layer, "bilinear").take(cells, at)

    passage.run(pixels, see)
    return values


def _standard(passage: Passage, columns: Array) -> tuple[Array, Array]:
    """What to take off each feature, and what to multiply it by.

    Each layer's features then vary by 1 together, so that large layers do not outvote small ones.
    """
    scale = 1.0 / np.maximum(columns.std(0), 1e-6)
    for layer in passage.layers:
        scale[layer.columns] /= np.sqrt(layer.shape[-1])
    return columns.mean(0), scale.astype(np.float32)


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


def _scores(passage: Passage, pixels: Array, weights: Array) -> Array:
    """`[x,y,k]`: every pixel's hypercolumn (bilinear) times `weights` `[features, k]`."""
    scores = np.zeros((*pixels.shape[:2], weights.shape[1]), np.float32)

    def see(layer: Layer, cells: Array) -> None:
        own = np.ascontiguousarray(cells) @ weights[layer.columns]
        Grid(layer, "bilinear").spread(own, scores, add=True)

    passage.run(pixels, see)
    return scores
