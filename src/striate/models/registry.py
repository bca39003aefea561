"""All networks by name: how each is made, what it takes, how large it is, where its weights are."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from striate.models import densenet, resnet
from striate.models.alexnet import alexnet, alexnet_2012
from striate.models.blocks import Classifier
from striate.models.densenet import DenseNet
from striate.models.efficientnet import EfficientNetLite
from striate.models.googlenet import GoogLeNet, googlenet_2014
from striate.models.inception import Inception3
from striate.models.mnasnet import MNASNet
from striate.models.mobilenet import MobileNetV2
from striate.models.resnet import ResNet
from striate.models.shufflenet import ShuffleNetV2
from striate.models.squeezenet import SqueezeNet
from striate.models.vgg import VGG
from striate.weights.catalogue import PACKAGED, PUBLISHED
from striate.weights.presets import STANDARD, PresetData, preset_of_file

# The network that is used where nobody names one.
DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True, slots=True)
class Entry:
    """A network: `build(classes=...)` makes it.

    `parameters` and `multiply_adds` (convolutions and linear layers, one image of `input` rows
    and columns) are for 1000 classes; `preset` belongs to the first ImageNet weights published, or
    is what the paper says where none are.
    """

    name: str
    family: str
    build: Callable[..., Classifier]
    parameters: int
    multiply_adds: int
    preset: PresetData

    @property
    def input(self) -> tuple[int, int]:
        """The rows and columns of the images that the network is trained on (pixels)."""
        return self.preset.crop, self.preset.crop

    @property
    def file(self) -> str | None:
        """The name of the ImageNet weights' file at torchvision or in a package, None without."""
        return _first_file(self.name)

    def preset_of(self, weights: str | PurePath) -> PresetData:
        """The preset of a file of weights: of a published one its own, else the network's."""
        return preset_of_file(weights, self.preset)


def _first_file(name: str) -> str | None:
    if name in PACKAGED:
        return PACKAGED[name][2].rpartition("/")[2]
    return PUBLISHED[name][0] if name in PUBLISHED else None


# Name (or width), parameters, multiply-adds.
_RESNETS = (
    ("resnet18", 11689512, 1814073344),
    ("resnet34", 21797672, 3663761408),
    ("resnet50", 25557032, 4089184256),
    ("resnet101", 44549160, 7801405440),
    ("resnet152", 60192808, 11513626624),
    ("resnext50_32x4d", 25028904, 4230479872),
    ("resnext101_32x8d", 88791336, 16414015488),
    ("resnext101_64x4d", 83455272, 15460270080),
    ("wide_resnet50_2", 68883240, 11398021120),
    ("wide_resnet101_2", 126886696, 22753050624),
)
_VGGS = (
    ("vgg11", 132863336, 7609090048),
    ("vgg13", 133047848, 11308466176),
    ("vgg16", 138357544, 15470264320),
    ("vgg19", 143667240, 19632062464),
    ("vgg11_bn", 132868840, 7609090048),
    ("vgg13_bn", 133053736, 11308466176),
    ("vgg16_bn", 138365992, 15470264320),
    ("vgg19_bn", 143678248, 19632062464),
)
_DENSENETS = (
    ("densenet121", 7978856, 2834161664),
    ("densenet161", 28681000, 7727907072),
    ("densenet169", 14149480, 3359843328),
    ("densenet201", 20013928, 4291365888),
)
_SHUFFLENETS = (
    ("x0_5", 1366792, 40476448),
    ("x1_0", 2278604, 144907992),
    ("x1_5", 3503624, 295759392),
    ("x2_0", 7393996, 583253464),
)
_MNASNETS = (
    (0.5, 2218512, 104455968),
    (0.75, 3170208, 215493104),
    (1.0, 4383312, 314415872),
    (1.3, 6282256, 526362432),
)


def _entries() -> Iterator[Entry]:
    def entry(
        name: str,
        family: str,
        build: Callable[..., Classifier],
        parameters: int,
        multiply_adds: int,
        unpublished: PresetData = STANDARD,
    ) -> Entry:
        file = _first_file(name)
        preset = preset_of_file(file) if file else unpublished
        return Entry(name, family, build, parameters, multiply_adds, preset)

    yield entry("alexnet", "AlexNet", alexnet, 61100840, 714188480)
    lecture = PresetData(crop=227)
    yield entry("alexnet_2012", "AlexNet", alexnet_2012, 62378344, 1135256096, lecture)
    for name, parameters, adds in _VGGS:
        vgg = partial(VGG, int(name[3:5]), name.endswith("_bn"))
        yield entry(name, "VGG", vgg, parameters, adds)
    for name, parameters, adds in _RESNETS:
        family = {"resnet": "ResNet", "resnex": "ResNeXt"}.get(name[:6], "Wide ResNet")
        yield entry(name, family, partial(ResNet, resnet.VARIANTS[name]), parameters, adds)
    for version, parameters, adds in (
        ("1.0", 1248424, 818924576),
        ("1.1", 1235496, 349151936),
    ):
        name = f"squeezenet{version.replace('.', '_')}"
        yield entry(name, "SqueezeNet", partial(SqueezeNet, version), parameters, adds)
    for name, parameters, adds in _DENSENETS:
        dense = partial(DenseNet, densenet.VARIANTS[name])
        yield entry(name, "DenseNet", dense, parameters, adds)
    yield entry("inception_v3", "Inception", Inception3, 27161264, 5713216096)
    yield entry("googlenet", "GoogLeNet", GoogLeNet, 13004888, 1498376192)
    yield entry("googlenet_2014", "GoogLeNet", googlenet_2014, 13378280, 1582671872)
    for width, parameters, adds in _SHUFFLENETS:
        name = f"shufflenet_v2_{width}"
        yield entry(name, "ShuffleNet", partial(ShuffleNetV2, width), parameters, adds)
    yield entry("mobilenet_v2", "MobileNet", MobileNetV2, 3504872, 300774272)
    for scale, parameters, adds in _MNASNETS:
        name = f"mnasnet{scale}".replace(".", "_")
        yield entry(name, "MNASNet", partial(MNASNet, scale), parameters, adds)
    yield entry("efficientnet_lite0", "EfficientNet", EfficientNetLite, 4652008, 385187552)


REGISTRY: Mapping[str, Entry] = {entry.name: entry for entry in _entries()}


def names() -> tuple[str, ...]:
    """The names of all networks, family by family."""
    return tuple(REGISTRY)


def find(name: str) -> Entry:
    """The network called `name`; raises ValueError, with the nearest names."""
    entry = REGISTRY.get(name)
    if entry is None:
        close = difflib.get_close_matches(str(name), REGISTRY, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`striate models` lists them"
        raise ValueError(f"there is no network {name!r}; {hint}")
    return entry
