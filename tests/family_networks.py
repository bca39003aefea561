"""One narrow network of each family, as it is or without any padding."""

import sys
from contextlib import contextmanager

import pytest
from golden_numbers import recipe

from striate import layers, models
from striate.layers import convolution, modules, pooling
from striate.layers.apply import apply
from striate.models import densenet, googlenet, inception, resnet

FAMILIES = (
    "alexnet",
    "alexnet_2012",
    "vgg11",
    "resnet18",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "squeezenet1_0",
    "densenet121",
    "inception_v3",
    "googlenet",
    "googlenet_2014",
    "shufflenet_v2_x0_5",
    "mobilenet_v2",
    "mnasnet0_5",
    "efficientnet_lite0",
)
CLASSES = 7
# Features are divided by this.
NARROWER = 8


@contextmanager
def narrow():
    """Networks that are made within have an eighth of their features."""
    with pytest.MonkeyPatch.context() as patch:
        for module, count in ((layers.Conv2d, 2), (layers.BatchNorm2d, 1), (layers.Linear, 2)):
            patch.setattr(module, "__init__", _divided(module.__init__, count))
        yield


def _divided(init, count):
    def less(features):
        return features if features == 3 else max(1, features // NARROWER)

    def wrapped(self, *arguments, **named):
        features, rest = arguments[:count], arguments[count:]
        if named.get("groups", 1) > 1:
            named["groups"] = less(named["groups"])
        init(self, *map(less, features), *rest, **named)

    return wrapped


@contextmanager
def unpadded():
    """Networks that are traced within pad nowhere; branches of several sizes are cut to the least.

    Blocks that repeat, and most of the Inception networks' ones, are left out: what is left of a
    small image would be nothing.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "conv2d", _without_padding(convolution.conv2d, 4))
        for pool in ("max_pool2d", "avg_pool2d"):
            changed = _without_padding(getattr(pooling, pool), 3)
            _everywhere(patch, pool, changed)
        _everywhere(patch, "add", _cut_first(layers.add))
        _everywhere(patch, "concatenate", _cut_list(layers.concatenate))
        yield


@contextmanager
def short():
    """Networks that are made within have one block of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("resnet18", "resnext50_32x4d", "wide_resnet50_2"):
            kind = resnet.VARIANTS[name]
            kind = resnet.Variant(kind.block, (1, 1, 1, 1), kind.groups, kind.width)
            patch.setitem(resnet.VARIANTS, name, kind)
        patch.setitem(densenet.VARIANTS, "densenet121", densenet.Variant(32, (2, 1, 1, 1), 64))
        rows = {name: row for name, *row in googlenet.INCEPTIONS}
        kept = [
            ("inception3a", *rows["inception3a"]),
            ("inception4a", 256, *rows["inception4a"][1:]),
        ]
        kept.append(("inception5b", 512, *rows["inception5b"][1:]))
        patch.setattr(googlenet, "INCEPTIONS", tuple(kept))
        rows = {name: branches for name, _, branches in inception.MIXED}
        mixed = (("Mixed_5b", 192), ("Mixed_6a", 256), ("Mixed_7b", 736))
        patch.setattr(inception, "MIXED", tuple((n, i, rows[n]) for n, i in mixed))
        yield


def shorter(network):
    """`network` without its blocks that keep the shape."""
    for _, part in list(network.modules()):
        for name, block in part.parts().items():
            if getattr(block, "shortcut", False):
                setattr(part, name, layers.Identity())
            if name.startswith("stage"):
                setattr(part, name, block[:2])
    return network


def with_weights(network):
    """`network` with weights through which every pixel is felt, made of their names."""
    shapes = network.state_shapes()
    network.load_state_dict({name: recipe.tensor(name, shape) for name, shape in shapes.items()})
    return network


def family(name):
    """The network `name`, narrow, of `CLASSES` classes."""
    with narrow():
        network = models.create(name, classes=CLASSES * NARROWER)
    if name == "inception_v3":
        # It needs a large image.
        del network.AuxLogits
    return with_weights(network)


def short_family(name):
    """The network `name`, narrow and short."""
    with narrow(), short():
        entry = models.find(name)
        build = entry.build
        if hasattr(build, "func") and build.func in (resnet.ResNet, densenet.DenseNet):
            module = sys.modules[build.func.__module__]
            network = build.func(module.VARIANTS[name], CLASSES * NARROWER)
        else:
            network = models.create(name, classes=CLASSES * NARROWER)
    return with_weights(shorter(network))


def _everywhere(patch, name, function):
    patch.setattr(layers, name, function)
    for module in (
        *[m for n, m in sys.modules.items() if n.startswith("striate.models.")],
        pooling,
        modules,
    ):
        if hasattr(module, name):
            patch.setattr(module, name, function)


def _without_padding(function, place):
    def wrapped(*arguments, **named):
        arguments = (
            (*arguments[:place], 0, *arguments[place + 1 :])
            if len(arguments) > place
            else arguments
        )
        named = {k: v for k, v in named.items() if k not in ("padding", "ceil_mode")}
        if function.__name__ == "max_pool2d":
            arguments = arguments[:5]
        return function(*arguments, **named)

    return wrapped


def _cut(input, rows, columns):
    if input.shape[1:3] == (rows, columns):
        return input
    o, r = ((n - m) // 2 for n, m in zip(input.shape[1:3], (rows, columns), strict=True))
    return apply(
        "y[b,p,q,i] = x[b, p+o, q+r, i]",
        {"x": input},
        input,
        sizes={"p": rows, "q": columns},
        constants={"o": o, "r": r},
        label="cut",
    )


def _together(parts):
    if len(parts[0].shape) != 4:
        return parts
    rows, columns = (min(part.shape[axis] for part in parts) for axis in (1, 2))
    return [_cut(part, rows, columns) for part in parts]


def _cut_first(function):
    return lambda left, right: function(*_together([left, right]))


def _cut_list(function):
    return lambda parts, axis=-1: function(_together(list(parts)), axis)
