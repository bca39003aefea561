"""Hypercolumns: for each pixel of an image the features above it, of several layers at once.

After Hariharan, Arbelaez, Girshick and Malik, Hypercolumns for Object Segmentation (2015).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from striate.vision.classification import network_of, preset_of

if TYPE_CHECKING:
    from striate.images import Preset
    from striate.images.loading import Source
    from striate.layers import Module
    from striate.layers.extract import Stride
    from striate.runtime import Executable

Array = NDArray[np.float32]
Pixels = NDArray[np.int64]
Interpolation = Literal["nearest", "bilinear"]

INTERPOLATIONS = ("nearest", "bilinear")
# A stack for all pixels of more bytes is only written where the caller has made room for it.
LARGEST = 4 << 30


class TooLargeError(ValueError):
    """More hypercolumns than fit into memory; `size` is how many bytes they take."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's share of the hypercolumns.

    Its map has `shape` (rows, columns, features), `stride` rows and columns of pixels to a cell;
    its features are those of `columns` in every hypercolumn.
    """

    name: str
    shape: tuple[int, int, int]
    stride: "Stride"
    columns: slice


@dataclass(frozen=True, slots=True)
class Hypercolumns:
    """`values` float32`[n, features]` of n pixels, or `[x, y, features]` of all, by `layers`."""

    values: Array
    layers: tuple[Layer, ...]

    def __getitem__(self, name: str) -> Array:
        """The features of the layer called `name`: a view. Raises KeyError."""
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            raise KeyError(f"{name}; the layers are {', '.join(each.name for each in self.layers)}")
        return self.values[..., found.columns]


def hypercolumns(
    model: "str | Module",
    image: "Source | Array",
    layers: Sequence[str] | None = None,
    at: object = None,
    interpolation: Interpolation = "nearest",
    *,
    out: Array | None = None,
    preset: "Preset | None" = None,
    threads: int | None = None,
    algorithm: str = "auto",
) -> Hypercolumns:
    """The features above each pixel of an image of any size, of all `layers` one after another.

    `model` is a network, or the name of one that is given its ImageNet weights. `image` is a path,
    bytes, an open file or a Pillow image, which the `preset` of the model's weights scales but does
    not resize; or float32`[x,y,i]` that has been scaled. `layers` are names as `features` takes
    them; by default the last feature maps of strides 2, 4, 8 and so on, as far as there are.

    `at` holds pixels `[n, 2]` (row x, column y, from 0 on): their hypercolumns are taken from the
    maps while the network runs, which costs no more than its run. Without `at` all pixels' are
    made. More than 4 GiB need an array `out`, float32`[x, y, features]` (or `[n, features]`), to be
    written into (a `numpy.memmap`, say), else TooLargeError is raised.

    Pixel (x, y) of a map L with stride f has, where the interpolation is "nearest",
    L[floor(x / f), floor(y / f)], or the last cell where the map ends before (padding is missing);
    "bilinear" weighs the four cells around (x + 1/2) / f - 1/2, cells beyond the edge being the
    edge's. Raises ImageError, ValueError, TypeError.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}; expected 'nearest' or 'bilinear'")
    network = network_of(model)
    pixels = pixels_of(image, preset or preset_of(network))
    size = (pixels.shape[0], pixels.shape[1])
    places = None if at is None else checked_pixels(at, size)
    passage = Passage.of(network, pixels.shape, layers, threads, algorithm)
    shape = (*size, passage.features) if places is None else (len(places), passage.features)
    values = _room(shape, out)

    def see(layer: Layer, cells: Array) -> None:
        grid = Grid(layer, interpolation)
        if places is None:
            grid.spread(cells, values[..., layer.columns])
        else:
            values[:, layer.columns] = grid.take(cells, places)

    passage.run(pixels, see)
    return Hypercolumns(values, passage.layers)


@dataclass(frozen=True, slots=True)
class Passage:
    """A network as it passes over an image of one size, and the layers that are watched."""

    layers: tuple[Layer, ...]
    executable: "Executable"

    @property
    def features(self) -> int:
        """The length of a hypercolumn."""
        return sum(layer.shape[-1] for layer in self.layers)

    @staticmethod
    def of(
        model: "Module",
        shape: tuple[int, ...],
        names: Sequence[str] | None,
        threads: int | None = None,
        algorithm: str = "auto",
    ) -> "Passage":
        """`model` compiled for images of `shape`, `[x,y,i]`; kept until it changes."""
        asked = None if names is None else tuple(names)
        if isinstance(names, str) or asked == ():
            raise ValueError(f"layers is {names!r}; expected a list of names, such as ['layer1']")
        key = ("passage", shape, asked, threads, algorithm)
        return model.kept(key, lambda: _passage(model, (1, *shape), asked, threads, algorithm))

    def run(self, pixels: Array, see: Callable[[Layer, Array], None]) -> None:
        """Show every layer's map `[p,q,j]` of the image `[x,y,i]` to `see` when it is made.

        It is the network's own memory, to be read while `see` lasts. The layers come in the
        network's order.
        """
        image = np.ascontiguousarray(pixels[np.newaxis])
        self.executable.watch([image], lambda number, cells: see(self.layers[number], cells[0]))


def _passage(
    model: "Module",
    shape: tuple[int, ...],
    names: tuple[str, ...] | None,
    threads: int | None,
    algorithm: str,
) -> Passage:
    from striate.layers.extract import feature_graph, survey
    from striate.layers.tracing import compiled

    found = survey(model, shape)
    if names is None:
        names = tuple(name for name in found.stages if name != "stride1") or tuple(found.stages)
        if not names:
            raise ValueError(f"{type(model).__name__} has no feature maps; name its layers")
    graph, places = feature_graph(model, shape, names)
    if len(set(places.values())) < len(names):
        raise ValueError(f"two of the layers {', '.join(names)} are the same tensor; name it once")
    layers, start = [], 0
    for name in places:
        node = graph.outputs[places[name]]
        stride = found.strides.get(found.stages.get(name, name))
        if stride is None:
            raise ValueError(f"{name!r} is no map of the image's pixels: it is {list(node.shape)}")
        _, rows, columns, features = node.shape
        share = slice(start, start + features)
        layers.append(Layer(name, (rows, columns, features), stride, share))
        start = share.stop
    return Passage(tuple(layers), compiled(graph, threads, algorithm, watched=True))


@dataclass(frozen=True, slots=True)
class Grid:
    """Which cells of a layer's map lie above a pixel."""

    layer: Layer
    interpolation: Interpolation

    def cells(self, axis: int, places: Pixels) -> tuple[Pixels, Pixels, Array]:
        """Two cells for each row (axis 0) or column `places`, and how much the second counts."""
        step, over = self.layer.stride[axis].as_integer_ratio()
        last = self.layer.shape[axis] - 1
        if self.interpolation == "nearest":
            cell = np.minimum(places * over // step, last)
            return cell, cell, np.zeros(len(places), np.float32)
        # (x + 1/2) / f - 1/2, in integers: a rounded floor would take other cells.
        first, rest = np.divmod((2 * places + 1) * over - step, 2 * step)
        upper = (rest / (2 * step)).astype(np.float32)
        return np.clip(first, 0, last), np.clip(first + 1, 0, last), upper

    def take(self, cells: Array, places: Pixels) -> Array:
        """`[n, j]`: what `cells` `[p,q,j]` have at the pixels `places` `[n, 2]`."""
        top, bottom, down = self.cells(0, places[:, 0])
        left, right, across = self.cells(1, places[:, 1])
        if self.interpolation == "nearest":
            return np.asarray(cells[top, left])
        down, across = down[:, np.newaxis], across[:, np.newaxis]
        upper = cells[top, left] * (1 - across) + cells[top, right] * across
        lower = cells[bottom, left] * (1 - across) + cells[bottom, right] * across
        return np.asarray(upper * (1 - down) + lower * down)

    def spread(self, cells: Array, out: Array, *, add: bool = False) -> None:
        """Write what `cells` `[p,q,j]` have at every pixel into `out` `[x,y,j]`, or add it."""
        top, bottom, down = self.cells(0, np.arange(out.shape[0]))
        left, right, across = self.cells(1, np.arange(out.shape[1]))
        weight = across[:, np.newaxis]
        made: tuple[int, int, float] | None = None
        line = np.empty(0, np.float32)
        for x, (first, second, part) in enumerate(zip(top, bottom, down, strict=True)):
            if made != (first, second, part):
                made = (first, second, part)
                row = cells[first] if not part else cells[first] * (1 - part) + cells[second] * part
                line = row[left] if self.interpolation == "nearest" else row[left] * (1 - weight)
                if self.interpolation == "bilinear":
                    line += row[right] * weight
            out[x] = out[x] + line if add else line


def pixels_of(image: "Source | Array", preset: "Preset") -> Array:
    """The image as float32`[x,y,i]`: of its own size, scaled as the preset says."""
    from striate.images import load

    if not isinstance(image, np.ndarray):
        return preset.normalize(load(image))
    if image.dtype != np.float32 or image.ndim != 3:
        raise TypeError(
            f"image is an array of {image.dtype} {list(image.shape)}; expected a Pillow image "
            "(Image.fromarray makes one), or float32 [x,y,i] as the network takes it"
        )
    return image


def checked_pixels(at: object, size: tuple[int, int], name: str = "at") -> Pixels:
    """Pixels `[n, 2]` (row, column) of an image of `size`. Raises ValueError."""
    given = np.asarray(at)
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has {given.dtype} {list(given.shape)}; expected integers [n, 2], "
            "the row and the column of each pixel"
        )
    pixels = given.astype(np.int64)
    outside = np.flatnonzero(((pixels < 0) | (pixels >= np.array(size))).any(1))
    if len(outside):
        row, column = given[outside[0]]
        raise ValueError(
            f"{name} has the pixel of row {row} and column {column}; the image has rows 0 to "
            f"{size[0] - 1} and columns 0 to {size[1] - 1}"
        )
    return pixels


def _room(shape: tuple[int, ...], out: Array | None) -> Array:
    """The array to write into."""
    if out is not None:
        if out.shape != shape or out.dtype != np.float32:
            raise ValueError(
                f"out is {out.dtype} {list(out.shape)}; expected float32 {list(shape)}"
            )
        return out
    nbytes = 4 * int(np.prod(shape, dtype=np.int64))
    if nbytes > LARGEST:
        raise TooLargeError(
            f"the hypercolumns, {' x '.join(map(str, shape))}, take {nbytes / 2**30:.1f} GiB: take "
            "them at fewer pixels (at=), of fewer layers, or of a smaller image; or give an array "
            "for them, out=",
            nbytes,
        )
    return np.empty(shape, np.float32)
