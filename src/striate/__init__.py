"""Convolutional networks as equations, compiled to machine code.

The functions of layers, `equation`, `classify`, `evaluate`, and the folders `models`, `layers`,
`images`, `weights` and `notation`. Each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate import images, layers, models, notation, weights
    from striate.evaluation import Evaluation, evaluate
    from striate.layers import (
        Module,
        Sequential,
        adaptive_avg_pool2d,
        avg_pool2d,
        batch_norm,
        channel_shuffle,
        concatenate,
        conv2d,
        dropout,
        equation,
        features,
        flatten,
        global_avg_pool2d,
        im2col,
        interpolate,
        linear,
        local_response_norm,
        max_pool2d,
        relu,
        relu6,
        sigmoid,
        softmax,
    )
    from striate.models.inspection import Inspection, inspect
    from striate.vision.classification import Classification, Guess, classify
    from striate.vision.dense import DenseNetwork, Geometry, dense
    from striate.vision.hypercolumns import Hypercolumns, hypercolumns
    from striate.vision.segmentation import Segmentation, regions, segment
    from striate.weights.artifact import CompiledNetwork, load, save

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "CompiledNetwork",
    "DenseNetwork",
    "Evaluation",
    "Geometry",
    "Guess",
    "Hypercolumns",
    "Inspection",
    "Module",
    "Segmentation",
    "Sequential",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "channel_shuffle",
    "classify",
    "concatenate",
    "conv2d",
    "dense",
    "dropout",
    "equation",
    "evaluate",
    "features",
    "flatten",
    "global_avg_pool2d",
    "hypercolumns",
    "im2col",
    "images",
    "inspect",
    "interpolate",
    "layers",
    "linear",
    "load",
    "local_response_norm",
    "max_pool2d",
    "models",
    "notation",
    "regions",
    "relu",
    "relu6",
    "save",
    "segment",
    "sigmoid",
    "softmax",
    "weights",
]

_FOLDERS = frozenset(["images", "layers", "models", "notation", "weights"])
_HOMES = {
    "striate.models.inspection": frozenset(["Inspection", "inspect"]),
    "striate.weights.artifact": frozenset(["CompiledNetwork", "load", "save"]),
    "striate.vision.classification": frozenset(["Classification", "Guess", "classify"]),
    "striate.vision.hypercolumns": frozenset(["Hypercolumns", "hypercolumns"]),
    "striate.vision.dense": frozenset(["DenseNetwork", "Geometry", "dense"]),
    "striate.vision.segmentation": frozenset(["Segmentation", "regions", "segment"]),
    "striate.evaluation": frozenset(["Evaluation", "evaluate"]),
}


def __getattr__(name: str) -> object:
    """The public name `name`, imported now that it is wanted."""
    if name not in __all__:
        raise AttributeError(f"module 'striate' has no attribute {name!r}")
    if name in _FOLDERS:
        return import_module(f"striate.{name}")
    home = next((home for home, names in _HOMES.items() if name in names), "striate.layers")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
