"""`striate compile`: a network as one file of machine code and packed weights."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.choices import Algorithm, AlgorithmOption


def compile(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The network; `striate models` lists them.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default=False),
    ],
    weights: Annotated[
        str, typer.Option(metavar="FILE", help="A .pth or .safetensors file, or imagenet.")
    ] = "imagenet",
    input: Annotated[
        str | None, typer.Option(metavar="HxW", help="The image's size.", show_default="its own")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in one run.")] = 1,
    algorithm: AlgorithmOption = Algorithm.AUTO,
) -> None:
    """Compile a network for this CPU into a file that loads in milliseconds.

    `striate classify --model FILE` and `striate.load(FILE)` run it; its weights are in it.
    """
    from striate.cli.networks import input_shape
    from striate.models import create
    from striate.weights.artifact import save

    sizes = input_shape(model, input, batch)
    path = save(create(model, weights), output, sizes, algorithm=algorithm)
    print(f"{path}: {model}, {path.stat().st_size / 1e6:.1f} MB")
