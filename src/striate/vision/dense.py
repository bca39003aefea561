"""A classifier as a filter that passes over larger images: scores of all classes at each place."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.layers import Module
from striate.layers.arguments import as_float32, check_rank, integer, pair, shape_text
from striate.network.graph import Graph
from striate.transforms.dense import Sheet
from striate.vision.classification import network_of

if TYPE_CHECKING:
    from striate.layers.arguments import Pair
    from striate.runtime import Executable

Array = NDArray[np.float32]

BORDERS = ("image", "window")
# Memory for one pass over an image, beyond which it is taken in strips (bytes).
MEMORY = 1 << 30
# Crops in one run of the classifier, where every window has a border of its own.
CROPS = 8


@dataclass(frozen=True, slots=True)
class Geometry:
    """Which pixels each cell of a dense map stands for; all pairs are (rows, columns), in pixels.

    Cell (p, q) of `shape` saw the window whose first pixel is `offset + stride * (p, q)` and that
    has `size` pixels. Pixels behind the last window are seen by none: fewer than a stride.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]
    shape: tuple[int, int]

    def window(self, p: int, q: int) -> tuple[slice, slice]:
        """The rows and the columns of the image that cell (p, q) saw."""
        rows, columns = (
            slice(first + step * place, first + step * place + size)
            for first, step, place, size in zip(
                self.offset, self.stride, (p, q), self.size, strict=True
            )
        )
        return rows, columns

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the middles of the windows lie: rows and columns; pixel n runs from n to n + 1."""
        rows, columns = (
            np.arange(cells, dtype=np.float64) * step + (first + size / 2)
            for first, size, step, cells in zip(
                self.offset, self.size, self.stride, self.shape, strict=True
            )
        )
        return rows, columns


@dataclass(frozen=True, slots=True)
class Strip:
    """Cells `first` to `last` (rows of the map, not included) out of `cells` in one run.

    The run starts at row `start` of the map: its cells before `first` and from `last` on saw the
    strip's own border.
    """

    start: int
    first: int
    last: int


class DenseNetwork:
    """`dense(model)`: call it on images `[b,x,y,i]`. It keeps the model as it was."""

    def __init__(
        self,
        model: Module,
        window: tuple[int, int],
        stride: tuple[int, int] | None,
        borders: str,
        margin: tuple[int, int],
        memory: int,
        threads: int | None,
        algorithm: str,
    ) -> None:
        native = model.trace((1, *window, 3))
        self.window = window
        self.borders, self.margin = borders, margin
        self.memory = memory
        self._options = (threads, algorithm)
        self._sheet = Sheet(native, stride)
        self.stride = self._sheet.stride
        self.reach = self._sheet.reach()
        # Without padding a window's own border and the image's are one.
        self.crops = borders == "window" and self.reach.padded
        self._classifier = model.trace((CROPS, *window, 3)) if self.crops else native
        self._kept: dict[tuple[int, int], Executable] = {}
        self._heights: dict[tuple[int, int], int] = {}

    @property
    def classes(self) -> int:
        """The number of scores in a cell."""
        return self._classifier.outputs[0].shape[-1]

    def geometry_for(self, size: "Pair") -> Geometry:
        """The geometry of the map of an image of `size` (rows, columns). Raises ValueError."""
        image = pair(size, "size")
        room = [
            pixels + 2 * margin - window
            for pixels, margin, window in zip(image, self.margin, self.window, strict=True)
        ]
        if min(room) < 0:
            raise ValueError(
                f"the image has {image[0]} x {image[1]} pixels; expected at least the window's "
                f"{self.window[0]} x {self.window[1]}: enlarge the image, or give a smaller "
                "`size` or a `margin`"
            )
        rows, columns = (n // stride + 1 for n, stride in zip(room, self.stride, strict=True))
        offset = (-self.margin[0], -self.margin[1])
        return Geometry(self.window, self.stride, offset, (rows, columns))

    def bytes_for(self, size: "Pair") -> int:
        """The most memory that a map of an image of `size` (rows, columns) takes at once (bytes).

        That is activations, and a strip of the image and of the scores; the weights and the whole
        of the image and the scores come on top. Raises ValueError.
        """
        if self.crops:
            return self._planned(self._classifier)
        rows, columns = self.geometry_for(size).shape
        return self._bytes(self._height(rows, columns), columns)

    def __call__(self, images: Array) -> Array:
        """The scores `[b,p,q,j]` of the windows of `images[b,x,y,i]`.

        Raises ValueError for images smaller than a window, or where not even the narrowest strip
        fits into the memory.
        """
        images = as_float32(images, "dense: images")
        check_rank("dense: images", images.shape, 4, "[b,x,y,i]")
        cells = self.geometry_for(images.shape[1:3]).shape
        scores = np.empty((len(images), *cells, self.classes), np.float32)
        for image, result in zip(images, scores, strict=True):
            for row, part in self.strips(image):
                result[row : row + len(part)] = part
        return scores

    def strips(self, image: Array) -> Iterator[tuple[int, Array]]:
        """The map of one `image[x,y,i]` from top to bottom: a first row, and rows `[p,q,j]`.

        Raises as a call does.
        """
        image = as_float32(image, "dense: image")
        check_rank("dense: image", image.shape, 3, "[x,y,i]")
        geometry = self.geometry_for(image.shape[:2])
        if image.shape[2] != 3:
            raise ValueError(f"dense: image {shape_text(image.shape)} must have 3 features")
        if any(self.margin):
            image = np.pad(image, [*((m, m) for m in self.margin), (0, 0)])
        yield from self._cropped(image, geometry) if self.crops else self._sliced(image, geometry)

    def _sliced(self, image: Array, geometry: Geometry) -> Iterator[tuple[int, Array]]:
        rows, columns = geometry.shape
        height = self._height(rows, columns)
        run = self._executable((height, columns))
        pixels = [
            n + k * (m - 1)
            for n, k, m in zip(self.window, self.stride, (height, columns), strict=True)
        ]
        for strip in self._strips(rows, height):
            top = self.stride[0] * strip.start
            part = image[None, top : top + pixels[0], : pixels[1]]
            (scores,) = run(np.ascontiguousarray(part))
            yield strip.first, scores[0, strip.first - strip.start : strip.last - strip.start]

    def _strips(self, rows: int, height: int) -> Iterator[Strip]:
        """Strips of `height` rows of cells whose valid rows make up the map's `rows`."""
        before, behind = self.reach.before[0], self.reach.behind[0]
        first = 0
        while first < rows:
            start = min(max(first - before, 0), rows - height)
            end = start + height
            last = end if end == rows else end - behind
            yield Strip(start, first, last)
            first = last

    def _height(self, rows: int, columns: int) -> int:
        """The rows of cells in a strip of a map of so many."""
        key = rows, columns
        if key not in self._heights:
            self._heights[key] = self._fitting(rows, columns)
        return self._heights[key]

    def _fitting(self, rows: int, columns: int) -> int:
        """As many rows as fit into the memory, and alike in all strips."""
        if self._bytes(rows, columns) <= self.memory:
            return rows
        lost = self.reach.before[0] + self.reach.behind[0]
        least = lost + 1
        if least >= rows or (least_bytes := self._bytes(least, columns)) > self.memory:
            raise ValueError(
                f"one strip of the image takes {self._bytes(min(least, rows), columns)} bytes of "
                f"memory, more than the {self.memory} allowed; a larger output stride and a "
                "narrower image take less"
            )
        more = self._bytes(least + 8, columns)
        height = least + int(8 * (self.memory - least_bytes) // max(1, more - least_bytes))
        while height > least and self._bytes(height, columns) > self.memory:
            height -= max(1, height // 16)
        height = max(height, least)
        count = -(-(rows - lost) // (height - lost))
        return -(-(rows - lost) // count) + lost

    def _bytes(self, rows: int, columns: int) -> int:
        """The memory of a pass over so many cells."""
        return self._planned(self._sheet.graph((rows, columns)))

    def _planned(self, graph: Graph) -> int:
        """The memory of the activations, inputs and outputs of `graph` (bytes)."""
        from striate.compiler.compile import arena_bytes

        outer = sum(4 * int(np.prod(node.shape)) for node in (*graph.inputs, *graph.outputs))
        return outer + arena_bytes(graph, algorithm=self._options[1])

    def _cropped(self, image: Array, geometry: Geometry) -> Iterator[tuple[int, Array]]:
        run = self._executable((0, 0))
        rows, columns = geometry.shape
        batch = np.zeros((CROPS, *self.window, 3), np.float32)
        for p in range(rows):
            scores = np.empty((1, columns, self.classes), np.float32)
            for first in range(0, columns, CROPS):
                last = min(first + CROPS, columns)
                for q in range(first, last):
                    # Of the image with its margins.
                    top, left = p * self.stride[0], q * self.stride[1]
                    batch[q - first] = image[
                        top : top + self.window[0], left : left + self.window[1]
                    ]
                scores[0, first:last] = run(batch)[0][: last - first]
            yield p, scores

    def _executable(self, cells: tuple[int, int]) -> "Executable":
        """The program for strips of so many cells, (0, 0) for the classifier's."""
        from striate.layers.tracing import compiled

        if cells not in self._kept:
            graph = self._sheet.graph(cells) if any(cells) else self._classifier
            self._kept.clear()
            self._kept[cells] = compiled(graph, *self._options)
        return self._kept[cells]


def dense(
    model: Module | str,
    output_stride: "Pair | None" = None,
    borders: str = "image",
    *,
    size: "Pair | None" = None,
    margin: "Pair" = 0,
    memory: int = MEMORY,
    threads: int | None = None,
    algorithm: str = "auto",
) -> DenseNetwork:
    """`model` made fully convolutional: a classifier that passes over images larger than its own.

    Called on images `[b,x,y,i]` it gives the scores `[b,p,q,j]` of every window of `size` pixels
    (by default what its weights were trained on); windows start at the image's first pixel and
    then every `output_stride` pixels (one number or (rows, columns); by default the network's own,
    mostly 32). Any stride will do: what it leaves of the network's strides stays, the rest becomes
    dilation.

    A network without padding gives exactly its scores of each window. One with padding sees, with
    borders="image", the window's real surroundings, and zeros only beyond the image: one pass.
    With borders="window" each window has its border of zeros, as a crop has: the classifier runs
    on every crop, which takes many times longer. With a `margin` windows start so many pixels
    before the image and end as many behind it, where there are zeros: half a window has every
    pixel in the middle of one.

    An image whose pass would take more than `memory` bytes is taken in strips, to the same values
    (with algorithm="direct" to the bit); a strip is at least as high as what a window
    sees. A name stands for a network with its ImageNet weights.
    Raises ValueError, TypeError.
    """
    model = network_of(model)
    if not isinstance(model, Module):
        raise TypeError(f"dense: model is {type(model).__name__}; expected a Module or a name")
    if borders not in BORDERS:
        raise ValueError(f"dense: borders is {borders!r}; expected 'image' or 'window'")
    if size is None:
        preset = getattr(model, "preset", None)
        if preset is None:
            raise ValueError("dense: give `size`, the rows and columns that the model classifies")
        size = preset.crop
    window = pair(size, "dense: size")
    stride = None if output_stride is None else pair(output_stride, "dense: output_stride")
    around = pair(margin, "dense: margin", 0)
    limit = integer(memory, "dense: memory", 1)
    return DenseNetwork(model, window, stride, borders, around, limit, threads, algorithm)
