"""`striate compile`: a network as one file of machine code and packed weights."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.choices import (
    Algorithm,
    AlgorithmOption,
    BatchOption,
    InputOption,
    JsonOption,
    ModelArgument,
    WeightsOption,
)
from striate.cli.output import check_output, print_json, progress, size


def compile(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write.", show_default=False),
    ],
    weights: WeightsOption = "imagenet",
    input: InputOption = None,
    batch: BatchOption = 1,
    algorithm: AlgorithmOption = Algorithm.AUTO,
    json: JsonOption = False,
) -> None:
    """Compile a network for this CPU into a file that loads in milliseconds.

    `striate classify --model FILE` and `striate.load(FILE)` run it; its weights are in it.
    """
    from striate.cli.networks import input_shape
    from striate.models import create
    from striate.weights.artifact import save

    check_output(output, "--output")
    sizes = input_shape(model, input, batch)
    with progress(None) as advance:
        advance(f"{model}: compiling", 0)
        path = save(create(model, weights), output, sizes, algorithm=algorithm)
    written = path.stat().st_size
    if json:
        head = {"model": model, "input": list(sizes), "algorithm": str(algorithm)}
        print_json({**head, "file": str(path), "bytes": written})
        return
    print(f"{path}: {model}, {size(written)}")
