"""From a photo to the numbers a network was trained on: resize, crop, normalise.

The bits are those of torchvision's `ImageClassification` preset on Pillow images. Which preset
belongs to which weights is said in `weights/presets.py`.
"""

from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from striate.weights.presets import PresetData

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class Preset(PresetData):
    """The short side is resized to `resize` pixels, the middle `crop` x `crop` of it is cut out.

    Then values 0..255 become `(value / 255 - mean) / std`, for each of red, green and blue.
    """

    @classmethod
    def of(cls, data: PresetData) -> "Preset":
        """What `data` says, to be applied to images."""
        return cls(data.resize, data.crop, data.mean, data.std, data.interpolation)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """The image (mode RGB) as float32[x, y, i]; x counts rows."""
        return self.normalize(self.frame(image))

    def frame(self, image: Image.Image) -> Image.Image:
        """The `crop` x `crop` pixels of the image that the network sees."""
        width, height = image.size
        short, long = sorted((width, height))
        size = (self.resize, int(self.resize * long / short))
        if width > height:
            size = size[::-1]
        image = self.resized(image, size[::-1])
        left, top = _first(size[0], self.crop), _first(size[1], self.crop)
        # Outside the image Pillow's crop is black: that is the padding of a smaller image.
        return image.crop((left, top, left + self.crop, top + self.crop))

    def resized(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The image with `size` (rows, columns) pixels."""
        if size == image.size[::-1]:
            return image
        return image.resize(size[::-1], _FILTERS[self.interpolation])

    def normalize(self, image: Image.Image) -> NDArray[np.float32]:
        """The pixels as float32[x, y, i], each step rounded to float32 as torch rounds it."""
        values = np.array(image, np.float32)
        values /= np.float32(255)
        # Whole rows at a time: NumPy is slow where the innermost axis has three elements.
        rows = values.reshape(values.shape[0], -1)
        rows -= np.tile(np.array(self.mean, np.float32), values.shape[1])
        rows /= np.tile(np.array(self.std, np.float32), values.shape[1])
        return values


def _first(size: int, crop: int) -> int:
    """Where a window of `crop` pixels begins in the middle of `size`; negative is padding.

    Ties go to the even pixel, as Python rounds; padding puts the odd pixel behind.
    """
    return -((crop - size) // 2) if size < crop else round((size - crop) / 2)


def preset_for(
    network: str, weights: str | PurePath | None = None, crop: int | None = None
) -> Preset:
    """The preset of `network` with the file `weights`; `crop` is another input size in pixels.

    A file of one's own has the preset of the network's first published weights. With another
    `crop` the short side grows in proportion. Raises ValueError for an unknown network.
    """
    from striate.models import find

    entry = find(network)
    preset = Preset.of(entry.preset if weights is None else entry.preset_of(weights))
    if crop is None or crop == preset.crop:
        return preset
    return replace(preset, crop=crop, resize=round(crop * preset.resize / preset.crop))
