"""The arguments and options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer

DEFAULT_MODEL = "efficientnet_lite0"


class Algorithm(StrEnum):
    """How sums may be taken: the names that the compiler knows."""

    AUTO = "auto"
    DIRECT = "direct"
    EXACT = "exact"


ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The network; `striate models` lists them.")
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
