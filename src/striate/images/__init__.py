"""Photos as networks want them: decoding, presets, folders, and the names of classes."""

from striate.images.classes import ClassName, class_names, classes_called, find_class
from striate.images.errors import ImageError, UnknownClassError
from striate.images.folders import find_images, images_below
from striate.images.loading import load, reduced
from striate.images.presets import Preset, preset_for

__all__ = [
    "ClassName",
    "ImageError",
    "Preset",
    "UnknownClassError",
    "class_names",
    "classes_called",
    "find_class",
    "find_images",
    "images_below",
    "load",
    "preset_for",
    "reduced",
]
