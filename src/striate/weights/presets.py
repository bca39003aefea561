"""How photos were prepared for the training of weights: a preset belongs to a file of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from striate.weights.catalogue import hash_prefix

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PresetData:
    """The short side is resized to `resize` pixels, the middle `crop` x `crop` of it is cut out.

    Then values 0..255 become `(value / 255 - mean) / std`, for each of red, green and blue.
    """

    resize: int = 256
    crop: int = 224
    mean: Colour = (0.485, 0.456, 0.406)
    std: Colour = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


STANDARD = PresetData()
# The recipe that torchvision trained its later weights by.
_LATER = PresetData(resize=232)

# By the hash in a published file's name; files that are not here have the standard one.
_OTHERS: Mapping[str, PresetData] = {
    "0cc3c7bd": PresetData(resize=342, crop=299),  # inception_v3
    "57934424": PresetData(  # efficientnet_lite0
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"
    ),
    "173b62eb": _LATER,  # resnext101_64x4d
    "3c479a10": _LATER,  # shufflenet_v2_x1_5
    "8be3c8ee": _LATER,  # shufflenet_v2_x2_0
    "7090bc5f": _LATER,  # mnasnet0_75
    "a4c69d6f": _LATER,  # mnasnet1_3
    # Second editions.
    "11ad3fa6": _LATER,  # resnet50
    "cd907fc2": _LATER,  # resnet101
    "f82ba261": _LATER,  # resnet152
    "1a0047aa": _LATER,  # resnext50_32x4d
    "110c445d": _LATER,  # resnext101_32x8d
    "9ba9bcbe": _LATER,  # wide_resnet50_2
    "d733dc28": _LATER,  # wide_resnet101_2
    "7ebf99e0": _LATER,  # mobilenet_v2
}


def preset_of_file(file: str | PurePath, otherwise: PresetData = STANDARD) -> PresetData:
    """The preset of a published file of weights, by its name; `otherwise` that of any other."""
    return _OTHERS.get(hash_prefix(PurePath(file).name), otherwise)
