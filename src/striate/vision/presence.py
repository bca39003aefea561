"""Where in a photo a network sees which classes: its dense map as probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.vision.classification import softmax
from striate.vision.dense import DenseNetwork, Geometry

if TYPE_CHECKING:
    from PIL.Image import Image

    from striate.images import Preset

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
# Is told the rows of cells that are done.
Advance = Callable[[int], None]

# Pixels of a photo as it is scaled, beyond which that alone would fill the memory.
_MOST_PIXELS = 1 << 26
# Without a size the photo's short side becomes so many windows: what fills half of it fills one.
WINDOWS = 2


@dataclass(frozen=True, slots=True)
class Presence:
    """`maps[k,p,q]`: how probable `classes[k]` is in the window of each cell.

    `geometry` is in pixels of the photo as it was scaled, `scale` (rows, columns) of those to one
    of the photo.
    """

    classes: tuple[int, ...]
    maps: Array
    geometry: Geometry
    scale: tuple[float, float]

    def centres(self) -> tuple[Floats, Floats]:
        """The rows and the columns of the photo in the middle of the cells' windows."""
        rows, columns = self.geometry.centres()
        return rows / self.scale[0], columns / self.scale[1]


def working_size(
    photo: tuple[int, int], window: tuple[int, int], scale: float | None = None
) -> tuple[int, int]:
    """Rows and columns of a photo (rows, columns) times `scale`; by default it is two windows wide.

    Raises ValueError.
    """
    if scale is None:
        scale = WINDOWS * max(window) / min(photo)
    if not 0 < scale < float("inf"):
        raise ValueError(f"the scale is {scale}; expected a number above 0")
    return max(1, round(photo[0] * scale)), max(1, round(photo[1] * scale))


def presence(
    network: DenseNetwork,
    preset: "Preset",
    photo: "Image",
    classes: Sequence[int] = (),
    *,
    size: tuple[int, int] | None = None,
    top: int = 3,
    advance: Advance | None = None,
) -> Presence:
    """How probable `classes` are around each place of the `photo`, scaled to `size` pixels.

    Without classes the `top` ones of the greatest mean. The size is (rows, columns), by default
    that of `working_size`. Raises ValueError.
    """
    pixels = size or working_size(photo.size[::-1], network.window)
    if pixels[0] * pixels[1] > _MOST_PIXELS:
        raise ValueError(
            f"the photo would be scaled to {pixels[0]} x {pixels[1]} pixels; expected at most "
            f"{_MOST_PIXELS} in all"
        )
    geometry = network.geometry_for(pixels)
    if not classes and 4 * network.classes * int(np.prod(geometry.shape)) > network.memory:
        raise ValueError(
            f"the maps of all {network.classes} classes take more than {network.memory} bytes; "
            "name the classes, or take a larger output stride"
        )
    kept: list[Array] = []
    for _, scores in network.strips(preset.normalize(preset.resized(photo, pixels))):
        for row in scores:
            shares = softmax(row).astype(np.float32)
            kept.append(shares[:, list(classes)] if classes else shares)
        if advance is not None:
            advance(len(scores))
    found = np.stack(kept)
    if not classes:
        order = np.argsort(-found.mean((0, 1)), kind="stable")[:top]
        classes, found = order.tolist(), found[..., order]
    scale = pixels[0] / photo.height, pixels[1] / photo.width
    return Presence(tuple(classes), np.ascontiguousarray(found.transpose(2, 0, 1)), geometry, scale)
