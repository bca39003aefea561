"""From a photo to the numbers a network was trained on: resize, crop, normalise.

The bits are those of torchvision's `ImageClassification` preset on Pillow images. A preset belongs
to the weights, not to the network: the second edition of torchvision's weights resizes to 232.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Preset:
    """The short side is resized to `resize` pixels, the middle `crop` x `crop` of it is cut out.

    Then values 0..255 become `(value / 255 - mean) / std`, for each of red, green and blue.
    """

    resize: int = 256
    crop: int = 224
    mean: Colour = (0.485, 0.456, 0.406)
    std: Colour = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

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
        if size != image.size:
            image = image.resize(size, _FILTERS[self.interpolation])
        left, top = _first(size[0], self.crop), _first(size[1], self.crop)
        # Outside the image Pillow's crop is black: that is the padding of a smaller image.
        return image.crop((left, top, left + self.crop, top + self.crop))

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


_STANDARD = Preset()
_SECOND_EDITION = Preset(resize=232)

# By the network's name.
_OF_NETWORK: Mapping[str, Preset] = {
    "inception_v3": Preset(resize=342, crop=299),
    "alexnet_2012": Preset(crop=227),
    "efficientnet_lite0": Preset(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"),
    "resnext101_64x4d": _SECOND_EDITION,
    "shufflenet_v2_x1_5": _SECOND_EDITION,
    "shufflenet_v2_x2_0": _SECOND_EDITION,
    "mnasnet0_75": _SECOND_EDITION,
    "mnasnet1_3": _SECOND_EDITION,
}

# By the hash in a published file's name: torchvision's second edition, where there are two.
_OF_FILE: Mapping[str, Preset] = dict.fromkeys(
    (
        "11ad3fa6",  # resnet50
        "cd907fc2",  # resnet101
        "f82ba261",  # resnet152
        "1a0047aa",  # resnext50_32x4d
        "110c445d",  # resnext101_32x8d
        "9ba9bcbe",  # wide_resnet50_2
        "d733dc28",  # wide_resnet101_2
        "7ebf99e0",  # mobilenet_v2
    ),
    _SECOND_EDITION,
)


def preset_for(
    network: str, weights: str | PurePath | None = None, crop: int | None = None
) -> Preset:
    """The preset of `network` with the file `weights`; `crop` is another input size in pixels.

    A file of one's own has the preset of the network's first published weights. With another
    `crop` the short side grows in proportion.
    """
    from striate.weights.catalogue import hash_prefix

    known = _OF_FILE.get(hash_prefix(PurePath(weights).name)) if weights is not None else None
    preset = known or _OF_NETWORK.get(network, _STANDARD)
    if crop is None or crop == preset.crop:
        return preset
    return replace(preset, crop=crop, resize=round(crop * preset.resize / preset.crop))
