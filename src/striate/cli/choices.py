"""The arguments and options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer

DEFAULT_MODEL = "efficientnet_lite0"
# How a place is given, and how that is explained.
PLACE = "X,Y"
PLACE_HELP = "X pixels from the left edge and Y from the top, as image viewers show; from 0 on."


class Algorithm(StrEnum):
    """How sums may be taken: the names that the compiler knows."""

    AUTO = "auto"
    DIRECT = "direct"
    EXACT = "exact"


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The network; `striate models` lists them.")
]
ModelOption = Annotated[
    str, typer.Option(metavar="NAME", help="The network; `striate models` lists them.")
]
PhotoArgument = Annotated[
    str,
    typer.Argument(metavar="PHOTO", help="An image, or - for standard input.", show_default=False),
]
WeightsOption = Annotated[
    str, typer.Option(metavar="FILE", help="A .pth or .safetensors file, or imagenet.")
]
InputOption = Annotated[
    str | None, typer.Option(metavar="HxW", help="The image's size.", show_default="its own")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images in one run.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of the network.", show_default="the cores allowed"),
]
AlgorithmOption = Annotated[
    Algorithm,
    typer.Option(help="direct is without Winograd; exact takes each sum in its equation's order."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")]
