"""Layers, each one equation: functions on arrays or symbolic nodes, and modules that hold them."""

from striate.layers.arrange import channel_shuffle, concatenate, flatten, take_features
from striate.layers.convolution import conv2d, im2col, linear
from striate.layers.elementwise import (
    add,
    dropout,
    relu,
    relu6,
    scale_and_shift,
    sigmoid,
    softmax,
)
from striate.layers.equation import EquationFunction, equation
from striate.layers.extract import features
from striate.layers.module import Module, Sequential
from striate.layers.modules import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    ChannelShuffle,
    Concatenate,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Identity,
    Im2col,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    ReLU6,
    Sigmoid,
    Softmax,
    Upsample,
)
from striate.layers.normalization import batch_norm, local_response_norm
from striate.layers.pooling import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, max_pool2d
from striate.layers.resize import interpolate
from striate.layers.state import StateDictError

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "ChannelShuffle",
    "Concatenate",
    "Conv2d",
    "Dropout",
    "EquationFunction",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "Im2col",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "ReLU",
    "ReLU6",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StateDictError",
    "Upsample",
    "adaptive_avg_pool2d",
    "add",
    "avg_pool2d",
    "batch_norm",
    "channel_shuffle",
    "concatenate",
    "conv2d",
    "dropout",
    "equation",
    "features",
    "flatten",
    "global_avg_pool2d",
    "im2col",
    "interpolate",
    "linear",
    "local_response_norm",
    "max_pool2d",
    "relu",
    "relu6",
    "scale_and_shift",
    "sigmoid",
    "softmax",
    "take_features",
]
